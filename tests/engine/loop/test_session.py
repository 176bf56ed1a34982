"""Sinks are open from before any other plugin is opened until after the run has ended, however it ends."""

from collections.abc import Callable
from typing import ClassVar

import pytest

import distillkit
from distillkit import Event, RunConfig, RunContext, RunFinished, Sink
from distillkit.testing import FakeScorer, FakeStudent

Make = Callable[..., RunConfig]


class Watching(Sink):
    """Notes what it is called for."""

    name: ClassVar[str] = "watching"
    calls: ClassVar[list[str]] = []

    async def open(self, run: RunContext) -> None:
        self.calls.append("open")

    def emit(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.calls.append(f"finished: {event.error}")

    async def close(self) -> None:
        self.calls.append("close")


class Unopened(FakeStudent):
    """Cannot be opened."""

    name: ClassVar[str] = "unopened"

    async def open(self, run: RunContext) -> None:
        raise OSError("no device")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watching, "calls", [])


def test_a_sink_hears_the_end_before_it_is_closed(fake_config: Make) -> None:
    distillkit.run(fake_config(sinks=[Watching()]), plugins=[FakeStudent, FakeScorer])
    assert Watching.calls == ["open", "finished: None", "close"]


def test_a_sink_hears_of_a_plugin_that_cannot_be_opened_before_it_is_closed(fake_config: Make) -> None:
    with pytest.raises(OSError, match="no device"):
        distillkit.run(fake_config(student=Unopened(), sinks=[Watching()]), plugins=[FakeStudent, FakeScorer])
    opened, finished, closed = Watching.calls
    assert (opened, closed) == ("open", "close")
    assert "OSError: no device" in finished
    assert "while it was opened" in finished
