"""When a checkpoint is due by time."""

from collections.abc import Callable
from typing import ClassVar

import pytest

from distillkit import RunConfig, run
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.training_data import Batch, StepResult
from engine.loop.failing_runs import Student, content

Make = Callable[..., RunConfig]


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("ahead", [0, 2])
def test_no_number_depends_on_when_a_checkpoint_is_due_by_time(make: Make, interval: int, ahead: int) -> None:
    options = {"weight_sync_interval": interval, "max_steps_off_policy": ahead, "keep_last": 20}
    whole = run(make("whole", save_every_minutes=0, **options))
    assert [step_of(path) for path in checkpoints(whole.run_dir)] == [12]
    often = run(make("often", save_every_minutes=1e-9, **options))
    assert [step_of(path) for path in checkpoints(often.run_dir)] == list(range(interval, 13, interval))
    assert content(often) == content(whole)


def test_by_default_a_checkpoint_is_due_after_ten_minutes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.loop import checkpointer

    now = [0.0]

    class Watch:
        """A clock that a step of the run moves by four minutes."""

        @staticmethod
        def monotonic() -> float:
            return now[0]

    class Slow(Student):
        """Takes four minutes a step."""

        name: ClassVar[str] = "fused"

        async def train(self, batch: Batch) -> StepResult:
            now[0] += 240
            return await super().train(batch)

    monkeypatch.setattr(checkpointer, "time", Watch)
    config = make("slow", max_steps=8, keep_last=20).model_copy(update={"student": Slow()})
    assert [step_of(path) for path in checkpoints(run(config).run_dir)] == [3, 6, 8]
