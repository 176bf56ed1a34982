"""Runs of student `tinker` on the loopback service."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conftest import question

from distillkit import RunConfig
from distillkit.config.load import merge

if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

STUDENT, TEACHER = "org/student", "org/teacher"


def make_config(service: "TinkerService", folder: Path, tokenizer: str, teacher: str, **over: Any) -> RunConfig:
    """A LoRA of the tiny model towards the other one, which is here; sections given as keywords are laid over it."""
    rows = over.pop("rows", None) or [question(f"number {i}") for i in range(8)]
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    values: dict[str, Any] = {
        "name": "tinker",
        "log_path": str(folder / "runs" / "{name}"),
        "data": {"path": str(path)},
        "student": {
            "name": "tinker",
            "model": STUDENT,
            "tokenizer_model": tokenizer,
            "lora_rank": 8,
            "learning_rate": 0.02,
            "base_url": service.base_url,
        },
        "teachers": [{"model": teacher, "scorer": {"name": "local"}}],
        "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 4},
        "train": {"prompt_groups_per_step": 4},
        "sinks": [],
    }
    for key, value in over.items():
        values[key] = merge(values[key], value) if isinstance(value, dict) and key in values else value
    return RunConfig(**values)
