"""A student that cannot go on ends the run at once, whatever the run is waiting for."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import read_jsonl

import distillkit
import distillkit.loop.engine
from distillkit import RunConfig
from distillkit.errors import RunFailedError
from distillkit.loop.windows_ahead import WindowsAhead
from distillkit.testing.fakes import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult


class Breaking(FakeStudent):
    """Breaks in the middle of a step, which never ends by itself."""

    async def train(self, batch: Batch) -> StepResult:
        training.set()
        await asyncio.Event().wait()
        return StepResult({})

    async def until_broken(self) -> None:
        await training.wait()
        raise RunFailedError("rank 3 is gone")


training = asyncio.Event()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "training", asyncio.Event())


async def test_the_run_ends_with_the_reason_and_loses_no_row(fake_config: Callable[..., RunConfig]) -> None:
    config = fake_config(student=Breaking())
    with pytest.raises(RunFailedError, match="rank 3 is gone"):
        await asyncio.wait_for(distillkit.arun(config, plugins=[FakeStudent, FakeScorer]), 60)
    directory = Path(config.log_path.replace("{name}", "fake"))
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "RunFailedError: rank 3 is gone")
    assert summary["rows"] == summary["failed_rows"] == 2
    assert len(read_jsonl(directory / "ledger.jsonl")) == 2


async def test_a_signal_that_comes_meanwhile_does_not_lose_the_rows(
    fake_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fake_config(student=Breaking())
    close = WindowsAhead.close

    async def close_slowly(self: WindowsAhead, *arguments: object) -> None:
        closing.set()
        await asyncio.sleep(0.2)
        await close(self, *arguments)  # type: ignore[arg-type]

    closing = asyncio.Event()
    monkeypatch.setattr(WindowsAhead, "close", close_slowly)
    task = asyncio.create_task(distillkit.arun(config, plugins=[FakeStudent, FakeScorer]))
    await closing.wait()
    task.cancel()  # as torchrun's SIGTERM does, a moment after a process has died
    with pytest.raises((RunFailedError, asyncio.CancelledError)):
        await task
    directory = Path(config.log_path.replace("{name}", "fake"))
    assert len(read_jsonl(directory / "ledger.jsonl")) == 2


async def test_a_student_that_says_nothing_of_it_runs_to_its_end(fake_config: Callable[..., RunConfig]) -> None:
    result = await distillkit.arun(fake_config(), plugins=[FakeStudent, FakeScorer])
    assert result.summary["status"] == "completed"
