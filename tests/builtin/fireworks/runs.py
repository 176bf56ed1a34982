"""Runs of student and scorers `fireworks` against the loopback service."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conftest import question

from builtin.fireworks.conftest import SERVED, SHAPE, STUDENT, TEACHER
from distillkit import RunConfig
from distillkit.config.load import merge

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

Make = Callable[..., RunConfig]


def make_config(service: "LoopbackService", folder: Path, tokenizer: str, **over: Any) -> RunConfig:
    """A LoRA of the tiny model towards the other one; sections given as keywords are laid over it."""
    rows = over.pop("rows", None) or [question(f"number {i}") for i in range(8)]
    values: dict[str, Any] = {
        "name": "fw",
        "log_path": str(folder / "runs" / "{name}"),
        "data": {"path": write_rows(folder, rows)},
        "student": {
            "name": "fireworks",
            "model": STUDENT,
            "tokenizer_model": tokenizer,
            "trainer": {"training_shape_id": SHAPE},
            "lora_rank": 8,
            "lora_alpha": 16,
            "learning_rate": 0.02,
            "weight_decay": 0.0,
            "base_url": service.base_url,
        },
        "teachers": [teacher(service, TEACHER)],
        "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 4},
        "train": {"prompt_groups_per_step": 4},
        "sinks": [],
    }
    for key, value in over.items():
        values[key] = merge(values[key], value) if isinstance(value, dict) and key in values else value
    return RunConfig(**values)


def teacher(service: "LoopbackService", model: str, route: str | None = None, **scorer: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "model": model,
        "scorer": {"name": "fireworks", "base_url": service.base_url, **scorer},
    }
    return entry if route is None else {**entry, "route_value": route}


def two_teachers(service: "LoopbackService", **scorer: Any) -> list[dict[str, Any]]:
    """One that gets a deployment, and one that is served already."""
    return [teacher(service, TEACHER, "deployed", **scorer), teacher(service, SERVED, "served")]


def routed_rows(count: int = 8, start: int = 0) -> list[dict[str, Any]]:
    return [question(f"number {i}", teacher="deployed" if i % 2 else "served") for i in range(start, start + count)]


def write_rows(folder: Path, rows: Sequence[Any], name: str = "train.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def nothing_is_left(service: "LoopbackService") -> bool:
    return not service.jobs and not service.deployments


def made(service: "LoopbackService", what: str) -> list[Any]:
    """The requests that made one of these."""
    return [request for request in service.requests if request.method == "POST" and request.path.endswith(f"/{what}")]
