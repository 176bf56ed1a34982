"""`--resume --from-step N`: a run goes on from an older checkpoint, and what came after it is forgotten."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import read_jsonl

import distillkit
from distillkit import RunConfig, RunResult
from distillkit.errors import InputError
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]


def run(config: RunConfig, **options: Any) -> RunResult:
    return distillkit.run(config, plugins=[FakeStudent, FakeScorer], **options)


@pytest.fixture
def saved(fake_config: Make) -> Callable[..., RunConfig]:
    """A config of five steps, each of which is saved; all checkpoints are kept."""
    return lambda **train: fake_config(train={"save_every": 1, "keep_last": 9, "max_steps_off_policy": 1, **train})


def content(result: RunResult) -> dict[str, Any]:
    """All numbers and rows that a run leaves, without times."""
    metrics = [
        {name: value for name, value in row.items() if not name.startswith("time/") and not name.endswith("/inflight")}
        for row in result.metrics
    ]
    files = {name: read_jsonl(result.run_dir / name) for name in ("ledger.jsonl", "samples.jsonl")}
    return {"metrics": metrics, **files}


@pytest.mark.parametrize("step", [1, 3, 4])
def test_going_on_from_an_older_step_gives_what_the_run_gave(saved: Make, step: int) -> None:
    first = content(run(saved()))
    again = run(saved(), resume=True, from_step=step)
    assert content(again) == first
    assert [step_of(path) for path in checkpoints(again.run_dir)] == [1, 2, 3, 4, 5]


def test_what_came_after_is_forgotten(saved: Make) -> None:
    first = run(saved())
    again = run(saved(max_steps=3), resume=True, from_step=2)
    assert again.steps == 3
    assert [row["step"] for row in again.metrics] == [1, 2, 3]
    assert [step_of(path) for path in checkpoints(first.run_dir)] == [1, 2, 3]
    assert {entry["step"] for entry in read_jsonl(first.run_dir / "ledger.jsonl")} == {1, 2, 3}


def test_other_rows_may_follow_after_a_guard_stopped_the_run(saved: Make) -> None:
    run(saved())
    config = saved().model_copy(update={"seed": 7})
    assert run(config, resume=True, from_step=2, force=True).steps == 5


def test_a_step_that_is_not_kept_is_refused_with_those_that_are(saved: Make) -> None:
    first = run(saved(keep_last=2))
    before = content(first)
    with pytest.raises(InputError, match=r"of step 2; there are those of steps 4 and 5 \(train.save_every"):
        run(saved(keep_last=2), resume=True, from_step=2)
    assert content(first) == before


def test_a_damaged_one_is_refused_and_nothing_is_forgotten(saved: Make) -> None:
    first = run(saved())
    state = first.run_dir / "checkpoints" / "step-2" / "engine.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "step": 3}))
    with pytest.raises(InputError, match=r"step-2 is damaged: .*; there are also those of steps 1, 3, 4 and 5"):
        run(saved(), resume=True, from_step=2)
    assert [step_of(path) for path in checkpoints(first.run_dir)] == [1, 2, 3, 4, 5]


def test_it_goes_with_resume_alone(saved: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--from-step goes with --resume"):
        run(saved(), from_step=2)
    with pytest.raises(InputError, match="--force goes with --resume"):
        run(saved(), force=True)
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
