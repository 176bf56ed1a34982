"""A run's garbage collections pass by what was loaded before it, and whoever decided otherwise is left alone."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

import distillkit
from distillkit import Event, RunConfig, Sink
from distillkit.errors import RunFailedError
from distillkit.events import StepFinished
from distillkit.loop.garbage_collection import loaded_objects_left_alone
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult

Make = Callable[..., RunConfig]


class Counting(Sink):
    """Notes how many objects are frozen when a step ends."""

    name: ClassVar[str] = "counting"
    frozen: ClassVar[list[int]] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            self.frozen.append(gc.get_freeze_count())


class Failing(FakeStudent):
    """Cannot train."""

    name: ClassVar[str] = "failing"

    async def train(self, batch: Batch) -> StepResult:
        raise RunFailedError("no device")


class Cycle:
    """Garbage that counting references does not find."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test process has frozen what it loaded (`conftest.py`), as a run then does not."""
    monkeypatch.setattr(Counting, "frozen", [])
    gc.unfreeze()
    yield
    gc.freeze()


def test_what_was_loaded_is_frozen_while_a_run_trains_and_no_longer(fake_config: Make) -> None:
    loaded = len(gc.get_objects())
    distillkit.run(fake_config(sinks=[Counting()], train={"max_steps": 2}), plugins=[FakeStudent, FakeScorer])
    assert len(Counting.frozen) == 2
    assert min(Counting.frozen) > loaded / 2
    assert gc.get_freeze_count() == 0


def test_nothing_stays_frozen_where_a_run_fails(fake_config: Make) -> None:
    with pytest.raises(RunFailedError, match="no device"):
        distillkit.run(fake_config(student=Failing()), plugins=[FakeStudent, FakeScorer])
    assert gc.get_freeze_count() == 0


def test_garbage_of_loading_is_not_kept_for_the_run() -> None:
    cycle = Cycle()
    gone = weakref.ref(cycle)
    del cycle
    with loaded_objects_left_alone():
        assert gone() is None


def test_garbage_of_the_run_is_collected() -> None:
    with loaded_objects_left_alone():
        cycle = Cycle()
        gone = weakref.ref(cycle)
        del cycle
        gc.collect()
        assert gone() is None


def test_who_froze_objects_before_decides() -> None:
    gc.freeze()
    frozen, kept = gc.get_freeze_count(), Cycle()
    with loaded_objects_left_alone():
        assert any(each is kept for each in gc.get_objects())
    assert gc.get_freeze_count() > frozen / 2
