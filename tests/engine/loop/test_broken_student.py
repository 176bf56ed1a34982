"""A student that cannot go on ends the run at once, whatever the run is waiting for."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import read_jsonl

import distillkit
import distillkit.loop.engine
from distillkit import RunConfig
from distillkit.errors import RunFailedError
from distillkit.loop.windows_ahead import WindowsAhead
from distillkit.records import Failure, Rollout, Weights
from distillkit.testing.fakes import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest


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


class BreakingWhileItSamples(FakeStudent):
    """Breaks when it samples from policy 3, and may not be able to save then."""

    name: ClassVar[str] = "breaking"
    parts_gone: bool = False
    unbroken: bool = False

    async def sync(self, weights: Weights) -> None:
        await super().sync(weights)
        if weights.version == 3 and not self.unbroken:
            training.set()

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        if training.is_set():
            await asyncio.Event().wait()
        async for outcome in super().sample(requests):
            yield outcome

    async def save(self, path: Path) -> None:
        if training.is_set() and self.parts_gone:
            raise RunFailedError("rank 3 is gone")
        await super().save(path)

    async def until_broken(self) -> None:
        await training.wait()
        raise RunFailedError("rank 3 is gone")


async def test_it_is_saved_as_it_was_and_a_resume_is_the_run_that_never_broke(
    fake_config: Callable[..., RunConfig],
) -> None:
    with pytest.raises(RunFailedError, match="rank 3 is gone"):
        await distillkit.arun(fake_config(student=BreakingWhileItSamples()))
    training.clear()
    breaks = BreakingWhileItSamples
    resumed = await distillkit.arun(fake_config(student=breaks(unbroken=True)), resume=True, force=True)
    assert "step 3, the last good one, is saved" in (resumed.run_dir / "run.log").read_text()
    whole = await distillkit.arun(fake_config(name="whole", student=breaks(unbroken=True)))
    for name in ("ledger.jsonl", "samples.jsonl", "adapter/fake.safetensors"):
        assert (resumed.run_dir / name).read_bytes() == (whole.run_dir / name).read_bytes()


async def test_what_it_cannot_save_any_more_is_said_with_where_a_resume_goes_on(
    fake_config: Callable[..., RunConfig],
) -> None:
    config = fake_config(
        student=BreakingWhileItSamples(parts_gone=True), train={"save_every": 2, "save_every_minutes": 0}
    )
    with pytest.raises(RunFailedError, match="rank 3 is gone"):
        await distillkit.arun(config)
    log = (Path(config.log_path.replace("{name}", "fake")) / "run.log").read_text()
    assert "step 3 is not saved: RunFailedError: rank 3 is gone; a resume goes on after step 2" in log


async def test_a_student_that_says_nothing_of_it_runs_to_its_end(fake_config: Callable[..., RunConfig]) -> None:
    result = await distillkit.arun(fake_config(), plugins=[FakeStudent, FakeScorer])
    assert result.summary["status"] == "completed"
