"""What plugins share is closed behind the run, by somebody who knows how it ended, and what they were opened for."""

from collections.abc import Callable
from typing import ClassVar

import pytest

import distillkit
from distillkit import Batch, RunConfig, RunContext, StepResult
from distillkit.preflight.prepared_run import prepare_run
from distillkit.probe.open_run import opened
from distillkit.registry import Registry
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]


class SharingStudent(FakeStudent):
    """Shares an object that notes how the run ended when it is closed."""

    name: ClassVar[str] = "sharing"
    ends: ClassVar[list[BaseException | None]] = []
    trained: ClassVar[list[bool]] = []
    fails: bool = False

    async def open(self, run: RunContext) -> None:
        await super().open(run)
        self.trained.append(run.trains)
        run.share("connection", object, lambda connection: self.ends.append(run.ended_by))

    async def train(self, batch: Batch) -> StepResult:
        if self.fails:
            raise OSError("no device")
        return await super().train(batch)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharingStudent, "ends", [])
    monkeypatch.setattr(SharingStudent, "trained", [])


async def test_what_closes_last_knows_that_nothing_ended_the_run(fake_config: Make) -> None:
    await distillkit.arun(fake_config(student=SharingStudent()), plugins=[FakeStudent, FakeScorer])
    assert SharingStudent.ends == [None]


async def test_what_closes_last_knows_what_ended_the_run(fake_config: Make) -> None:
    with pytest.raises(OSError, match="no device") as raised:
        await distillkit.arun(fake_config(student=SharingStudent(fails=True)), plugins=[FakeStudent, FakeScorer])
    assert SharingStudent.ends == [raised.value]


@pytest.mark.parametrize("trains", [True, False])
async def test_plugins_know_whether_they_are_to_train(fake_config: Make, registry: Registry, trains: bool) -> None:
    async with opened(prepare_run(fake_config(student=SharingStudent()), registry, print, trains=trains), print):
        assert SharingStudent.trained == [trains]
