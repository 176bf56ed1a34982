"""A clock that is set in the middle of a run: durations, timeouts and rates do not follow it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from conftest import question, read_jsonl

from distillkit import RunConfig, RunResult, run

Make = Callable[..., RunConfig]


def durations(row: Mapping[str, Any]) -> list[float]:
    names = [name for name in row if name.startswith("time/") or name in ("wall_s", "train_s")]
    return [row[name] for name in names if name != "time/unix"]  # which is a time of day


def require_sound(result: RunResult, steps: int) -> None:
    rows = read_jsonl(result.run_dir / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(steps + 1))
    for row in (*rows, result.summary):
        assert durations(row)
        assert all(0.0 <= value < 100.0 for value in durations(row)), row


def test_no_duration_is_negative_or_a_day_long(
    jumping: list[float], fake_config: Make, jsonl: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = jsonl([question("held out")], "heldout.jsonl")
    over = {"data": {"eval_path": held_out}, "evaluators": ["reverse_kl"], "sinks": ["console"]}
    run(fake_config(**over, train={"max_steps": 3, "save_every": 1, "eval_every": 2}))
    result = run(fake_config(**over, train={"save_every": 1, "eval_every": 2}), resume=True)
    require_sound(result, 5)
    assert jumping  # somebody asked
    lines = [line for line in capsys.readouterr().out.splitlines() if "ETA" in line]
    assert len(lines) == 5
    assert all("ETA -" not in line and "day" not in line for line in lines)
