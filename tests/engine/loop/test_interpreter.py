"""A run's garbage collections pass by what was loaded before it, and its threads take short turns.

Whoever decided otherwise is left alone.
"""

import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest

import distillkit
from distillkit import Event, RunConfig, Sink
from distillkit.errors import RunFailedError
from distillkit.events import StepFinished
from distillkit.loop.interpreter import TURN_SECONDS, loaded_objects_left_alone, short_turns
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult

Make = Callable[..., RunConfig]


class Counting(Sink):
    """Notes how many objects are frozen when a step ends, and how long a thread's turn is."""

    name: ClassVar[str] = "counting"
    frozen: ClassVar[list[int]] = []
    turns: ClassVar[list[float]] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            self.frozen.append(gc.get_freeze_count())
            self.turns.append(sys.getswitchinterval())


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
    monkeypatch.setattr(Counting, "turns", [])
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    gc.unfreeze()
    yield
    gc.freeze()
    sys.setswitchinterval(before)


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


def test_turns_are_short_while_a_run_trains_and_no_longer(fake_config: Make) -> None:
    distillkit.run(fake_config(sinks=[Counting()], train={"max_steps": 2}), plugins=[FakeStudent, FakeScorer])
    assert Counting.turns == pytest.approx([TURN_SECONDS] * 2)
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_turns_are_as_long_as_before_where_a_run_fails(fake_config: Make) -> None:
    with pytest.raises(RunFailedError, match="no device"):
        distillkit.run(fake_config(student=Failing()), plugins=[FakeStudent, FakeScorer])
    assert sys.getswitchinterval() == pytest.approx(0.005)


def test_shorter_turns_stay() -> None:
    sys.setswitchinterval(1e-4)
    with short_turns():
        assert sys.getswitchinterval() == pytest.approx(1e-4)
    assert sys.getswitchinterval() == pytest.approx(1e-4)
