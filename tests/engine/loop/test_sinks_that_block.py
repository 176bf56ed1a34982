"""A sink that raises, blocks for ever or takes its time, in each of its methods: the run ends, in time, and says so."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from pydantic import PrivateAttr

import distillkit
from distillkit import Event, Notice, RunConfig, RunContext, Sink, StepFinished
from distillkit.cli.running import silence
from distillkit.loop import sink_dispatcher, sink_thread
from distillkit.testing import ListSink

Make = Callable[..., RunConfig]
RELEASED = threading.Event()
MISSING = "what it was to show or keep may be missing"


class Shown(ListSink):
    """Shows things on the terminal, so it is closed last."""

    def silence(self) -> None:
        """Nothing is shown."""


class Bad(Sink):
    """Does in one of its methods what it is told to."""

    name: ClassVar[str] = "bad"
    closing_seconds: ClassVar[float] = 0.3
    where: str
    what: str
    _taken: list[Event] = PrivateAttr(default_factory=list)

    async def open(self, run: RunContext) -> None:
        await self._do("open")

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            self._now("emit")
        self._taken.append(event)

    async def close(self) -> None:
        await self._do("close")

    def silence(self) -> None:
        self._now("silence")

    def _now(self, where: str) -> None:
        if self.where != where:
            return
        if self.what == "raises":
            raise ZeroDivisionError(where)
        if self.what == "blocks":
            RELEASED.wait(60)
        if self.what == "slow":
            time.sleep(0.1)

    async def _do(self, where: str) -> None:
        if self.where == where and self.what == "in a thread":
            await asyncio.to_thread(RELEASED.wait, 60)
        if self.where == where and self.what == "awaits":
            await asyncio.sleep(60)
        self._now(where)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sink_dispatcher, "OPEN_SECONDS", 1.0)  # a sink that opens at once has to, on a busy machine too
    monkeypatch.setattr(sink_dispatcher, "STUCK_SECONDS", 60.0)
    monkeypatch.setattr(sink_thread, "WAITED_SECONDS", 0.2)
    RELEASED.clear()
    yield
    RELEASED.set()


@pytest.mark.parametrize(
    ("where", "what", "words"),
    [
        ("open", "raises", "sink 'bad' could not be opened and hears nothing: ZeroDivisionError: open"),
        ("open", "blocks", "sink 'bad' could not be opened and hears nothing: it did not return within 1 s"),
        ("open", "awaits", "sink 'bad' could not be opened and hears nothing: it did not return within 1 s"),
        ("open", "in a thread", "sink 'bad' could not be opened and hears nothing: it did not return within 1 s"),
        ("emit", "raises", "failed at StepFinished, and the run goes on: ZeroDivisionError: emit"),
        (
            "emit",
            "blocks",
            "sink 'bad' could not be closed: it did not return within 0.3 s; 6 events, from a StepFinished on, never "
            "reached it",
        ),
        (
            "close",
            "raises",
            f"sink 'bad' could not be closed: ZeroDivisionError: close; {MISSING}",
        ),
        (
            "close",
            "blocks",
            f"sink 'bad' could not be closed: it did not return within 0.3 s; {MISSING}",
        ),
        (
            "close",
            "in a thread",
            f"sink 'bad' could not be closed: it did not return within 0.3 s; {MISSING}",
        ),
    ],
)
def test_the_run_ends_and_one_notice_says_what_was_lost(fake_config: Make, where: str, what: str, words: str) -> None:
    shown, started = Shown(), time.monotonic()
    result = distillkit.run(fake_config(sinks=[shown, Bad(where=where, what=what)]))
    assert result.summary["status"] == "completed"
    assert time.monotonic() - started < 30  # it would block for a minute
    told = [event.message for event in shown.events if isinstance(event, Notice) and "bad" in event.message]
    assert sum(words in message for message in told) == 1
    assert words in (result.run_dir / "run.log").read_text(encoding="utf-8")
    assert sum(isinstance(event, StepFinished) for event in shown.events) == result.steps


def test_a_slow_sink_gets_all_events_and_the_run_does_not_wait_for_each(fake_config: Make) -> None:
    slow = Bad(where="emit", what="slow")
    result = distillkit.run(fake_config(sinks=[slow]))
    assert result.summary["sink_errors"] == {}
    assert sum(isinstance(event, StepFinished) for event in slow._taken) == result.steps


def test_a_sink_that_is_stuck_is_told_of_while_the_run_goes_on(
    fake_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_dispatcher, "STUCK_SECONDS", 0.01)
    shown = Shown()
    distillkit.run(fake_config(sinks=[Bad(where="emit", what="blocks"), shown]))
    told = [event.message for event in shown.events if isinstance(event, Notice)]
    assert sum("has been at one event for" in message for message in told) == 1


@pytest.mark.parametrize("what", ["raises", "blocks"])
def test_one_that_cannot_be_silenced_ends_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillkit.cli.running.SILENCE_SECONDS", 0.1)
    quiet = Shown()
    silence([Bad(where="silence", what=what), quiet])


def test_an_interrupt_that_a_sink_raises_ends_the_run(fake_config: Make) -> None:
    class Interrupting(Sink):
        name: ClassVar[str] = "interrupting"

        def emit(self, event: Event) -> None:
            if isinstance(event, StepFinished):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillkit.run(fake_config(sinks=[Interrupting()]))
