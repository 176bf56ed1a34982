"""What a run that ends has sampled ahead: kept for a resume, or sampled again."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import read_jsonl
from pydantic import PrivateAttr

from distillkit import Registry, RunConfig, run
from distillkit.loop.engine import FINISHING, Engine
from distillkit.loop.execute import execute
from distillkit.run_directory.checkpoint import checkpoints
from distillkit.run_directory.directory import run_directory
from distillkit.training_data import Batch, StepResult
from engine.run_directory.mortal_runs import Mortal, Power, content, dead, each_row_once


def drawn_ahead(folder: Path) -> list[int]:
    """How many completions the newest checkpoint holds of each step to come."""
    state = json.loads((checkpoints(folder)[-1] / "engine.json").read_text())
    return [len(window["outcomes"]["rollouts"]) for window in state["in_flight"]]


def test_what_another_run_drew_ahead_is_dropped_by_force_and_drawn_again(make: Callable[..., RunConfig]) -> None:
    folder = dead(make, max_steps_off_policy=2)
    first, second = drawn_ahead(folder)
    result = run(make("dead", Power(), max_steps_off_policy=2, prompt_groups_per_step=3), resume=True, force=True)
    told = f"{first + second} completions that the checkpoint holds, sampled ahead, are dropped"
    assert told in (folder / "run.log").read_text()
    assert (result.steps, result.summary["rows"], result.summary["trained_rows"]) == (10, 24, 24)
    each_row_once(folder, 24)


def test_what_was_drawn_for_a_last_step_that_is_not_the_last_any_more_is_drawn_again(
    make: Callable[..., RunConfig],
) -> None:
    options = {"prompt_groups_per_step": 7, "max_steps_off_policy": 2, "save_every": 1}
    with pytest.raises(ZeroDivisionError):
        run(make("more", Power(3), **options))  # of 7, 7, 7 and 3 rows
    config = make("more", Power(), **options)
    _, last = drawn_ahead(run_directory(config))
    result = run(config.model_copy(update={"data": config.data.model_copy(update={"epochs": 2})}), resume=True)
    assert f"{last} completions that the checkpoint holds" in (result.run_dir / "run.log").read_text()
    assert (result.steps, result.summary["trained_rows"]) == (7, 48)  # six of 7 rows and one of 6
    each_row_once(result.run_dir, 48)


class Stopped(Mortal):
    """Asks for the run's end while it trains a step."""

    name: ClassVar[str] = "mortal"
    _engines: list[Engine] = PrivateAttr(default_factory=list)
    _at: int = PrivateAttr(0)

    async def train(self, batch: Batch) -> StepResult:
        if self._engines[0].step + 1 == self._at:
            assert self._engines[0].request_stop() == "the step in hand, with a checkpoint"
        return await super().train(batch)


def stopped_at(step: int, config: RunConfig) -> None:
    """Run until it stops by itself, after this step."""
    student = Stopped.on(Power())
    assert isinstance(student, Stopped)
    student._at = step
    stopping = config.model_copy(update={"student": student})
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(execute(stopping, Registry.discover(), on_engine=student._engines.append))


def test_what_a_stopped_run_has_drawn_ahead_is_kept_and_not_failed(make: Callable[..., RunConfig]) -> None:
    options = {"max_steps_off_policy": 2, "eval_every": 0, "max_failed_fraction": 0.5}
    whole = run(make("whole", Power(), **options))
    config = make("stopped", Power(), **options)
    stopped_at(4, config)
    folder = run_directory(config)
    entries = read_jsonl(folder / "ledger.jsonl")
    outcomes = Counter((entry["step"], entry["outcome"]) for entry in entries)
    assert outcomes == {(step, "trained" if step <= 4 else "kept"): 2 for step in range(1, 7)}
    assert entries[-1]["completions"] == [{"sample": sample, "outcome": "kept"} for sample in range(3)]
    summary = json.loads((folder / "summary.json").read_text())
    counts = [summary[f"{name}_rows"] for name in ("trained", "failed", "kept")]
    assert (summary["rows"], counts) == (12, [8, 0, 4])
    parts = [summary[f"{name}_completions"] for name in ("trained", "failed", "kept")]
    assert (sum(parts), parts[2]) == (summary["completions"], 12)
    assert content(run(make("stopped", Power(), **options), resume=True)) == content(whole)


class AtTheEnd(Stopped):
    """Asks for the run's end while the final weights are written."""

    async def train(self, batch: Batch) -> StepResult:
        return await Mortal.train(self, batch)

    async def export(self, run_dir: Path) -> Path:
        assert self._engines[0].request_stop() == FINISHING
        return await super().export(run_dir)


def test_a_stop_that_comes_too_late_is_told_what_it_waits_for_and_the_run_is_complete(
    make: Callable[..., RunConfig],
) -> None:
    for cls, told in ((Stopped, 1), (AtTheEnd, 0)):  # who asks at the end is answered by `request_stop` itself
        student = cls.on(Power())
        assert isinstance(student, Stopped)
        student._at = 12
        config = make(cls.__name__, Power()).model_copy(update={"student": student})
        result = asyncio.run(execute(config, Registry.discover(), on_engine=student._engines.append))
        assert (result.steps, result.summary["status"]) == (12, "completed")
        assert (result.run_dir / "run.log").read_text().count(f"stopping after {FINISHING}") == told


def test_what_was_drawn_after_the_last_checkpoint_is_failed_and_what_it_holds_is_kept(
    make: Callable[..., RunConfig],
) -> None:
    with pytest.raises(ZeroDivisionError):  # with windows 4, 5 and 6 in flight, of which the checkpoint holds 4 and 5
        run(make("dead", Power(4), max_steps_off_policy=2, save_every=3))
    with pytest.raises(ZeroDivisionError):
        run(make("dead", Power(1), max_steps_off_policy=2, save_every=3), resume=True)
    entries = read_jsonl(run_directory(make("dead", Power())) / "ledger.jsonl")
    ends = {entry["step"]: entry["outcome"] for entry in entries}
    assert ends == {1: "trained", 2: "trained", 3: "trained", 4: "kept", 5: "kept", 6: "failed"}
