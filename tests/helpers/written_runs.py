"""Run directories written by hand, as a run leaves them, for what reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distillkit.run_directory.directory import HEADER

CONFIG: Mapping[str, Any] = {
    "name": "run",
    "seed": 0,
    "log_path": "runs/{name}",
    "data": {"path": "rows.jsonl", "epochs": 1},
    "student": {"name": "local", "model": "org/student", "lora_rank": 8, "learning_rate": 0.001},
    "teachers": [{"model": "org/teacher", "route_value": None, "scorer": {"name": "local"}}],
    "train": {"prompt_groups_per_step": 8, "max_steps": 20, "warn_logprob_mismatch": 0.1},
    "guards": {"action": "warn"},
    "sinks": [{"name": "console"}],
}
ROUTES = ("math", "code")


def step(number: int, **over: float | None) -> dict[str, Any]:
    """A line of `metrics.jsonl` of a run with two routes whose gaps fall."""
    gap = 0.5 * 0.9**number
    routes = {
        f"teacher_route/{route}/{name}": value
        for route in ROUTES
        for name, value in {"scored": 8.0, "failed": 0.0, "tokens": 100.0, "weight": 0.5, "reverse_kl": gap}.items()
    }
    own = {
        "train/reverse_kl": gap,
        "train/sampling_nll": 2.0,
        "train/active_tokens": 200.0,
        "train/loss": gap,
        "completions/mean_length": 30.0,
        "completions/truncated_fraction": 0.1,
        "time/step": 4.0,
        "time/sample": 2.0,
        "time/unix": 1.0,
    }
    return {"step": number, **own, **routes, **over}


def write_run(
    run_dir: Path,
    steps: Sequence[Mapping[str, Any]] | None = None,
    *,
    config: Mapping[str, Any] | None = None,
    ledger: Sequence[Mapping[str, Any]] = (),
    log: str = "2026-11-29 10:00:00,000 INFO it begins\n",
    **summary: Any,
) -> Path:
    """Write a run of 20 steps that completed, or as it is given; `summary` is laid over that of its end."""
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text(f"{HEADER}.\n{yaml.safe_dump({**CONFIG, **(config or {})})}", encoding="utf-8")
    lines = [step(number) for number in range(1, 21)] if steps is None else steps
    write_lines(run_dir / "metrics.jsonl", lines)
    write_lines(run_dir / "ledger.jsonl", ledger)
    (run_dir / "samples.jsonl").write_text("", encoding="utf-8")
    (run_dir / "run.log").write_text(log, encoding="utf-8")
    end = {"name": "run", "status": "completed", "error": None, "steps": len(lines), "eval": {}, "wall_s": 100.0}
    (run_dir / "summary.json").write_text(json.dumps({**end, **summary}), encoding="utf-8")
    return run_dir


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One line a record."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def lost(row: str, reason: str, stage: str = "score", teacher: str | None = "math") -> dict[str, Any]:
    """A line of a ledger: a row whose completion was lost."""
    completion = {"sample": 0, "outcome": "failed", "stage": stage, "reason": reason, "retryable": False}
    named = {"teacher": teacher} if teacher else {}
    return {
        "step": 1,
        "row_id": row,
        "epoch": 0,
        "route": "math",
        "outcome": "failed",
        "completions": [completion | named],
    }
