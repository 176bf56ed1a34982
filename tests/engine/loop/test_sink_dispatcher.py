import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from distillkit.context import RunContext
from distillkit.events import Event, Notice
from distillkit.loop.sink_dispatcher import LOGGED, SinkDispatcher
from distillkit.testing import ListSink, make_context


class Broken(ListSink):
    """Raises wherever it is told to."""

    name: ClassVar[str] = "broken"

    where: tuple[str, ...]

    def _do(self, what: str) -> None:
        if what in self.where:
            raise ZeroDivisionError(what)

    async def open(self, run: RunContext) -> None:
        self._do("open")

    async def close(self) -> None:
        self._do("close")

    def emit(self, event: Event) -> None:
        self._do("emit")
        super().emit(event)


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A run sends distillkit's log to its own file alone."""
    log = logging.getLogger("distillkit")
    propagate, log.propagate = log.propagate, True
    with caplog.at_level(logging.INFO, "distillkit"):
        yield
    log.propagate = propagate


def messages(sink: ListSink) -> list[str]:
    return [event.message for event in sink.events if isinstance(event, Notice)]


async def test_every_sink_hears_what_was_noticed_before_it_was_attached() -> None:
    dispatcher, sinks = SinkDispatcher(), [ListSink(), ListSink()]
    dispatcher.warn("early")
    for sink in sinks:
        assert await dispatcher.open_sink(sink, make_context())
        dispatcher.notice("one is open")
    dispatcher.attach(sinks)
    dispatcher.notice("late")
    assert [messages(sink) for sink in sinks] == [["early", "one is open", "one is open", "late"]] * 2


async def test_a_sink_that_cannot_be_opened_is_counted_logged_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher, good, bad = SinkDispatcher(), ListSink(), Broken(where=("open",))
    opened = [sink for sink in (bad, good) if await dispatcher.open_sink(sink, make_context())]
    assert opened == [good]
    dispatcher.attach(opened)
    assert dispatcher.failures == {"broken": 1}
    assert messages(good) == ["sink 'broken' could not be opened and hears nothing: ZeroDivisionError: open"]
    assert "sink 'broken' failed in open()" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_sink_that_cannot_be_closed_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher, bad = SinkDispatcher(), Broken(where=("close",))
    await dispatcher.close_sink(bad)
    assert dispatcher.failures == {"broken": 1}
    assert "sink 'broken' failed in close()" in caplog.text


def test_a_sink_that_fails_at_events_hides_none_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher, good, bad = SinkDispatcher(), ListSink(), Broken(where=("emit",))
    dispatcher.attach([bad, good])
    for number in range(LOGGED + 2):
        dispatcher.notice(f"number {number}")
    told = "sink 'broken' (engine.loop.test_sink_dispatcher.Broken) failed at Notice, and the run goes on: "
    assert messages(good) == ["number 0", f"{told}ZeroDivisionError: emit", *(f"number {n}" for n in range(1, 5))]
    assert dispatcher.failures["broken"] == len(good.events)
    assert caplog.text.count("sink 'broken' failed at Notice") == LOGGED
    dispatcher.report_failures()
    assert messages(good)[-1].startswith(f"sink 'broken' failed {len(good.events) - 1} times: ")
    assert [message for message in messages(good) if "and the run goes on" in message] == messages(good)[1:2]


def test_without_sinks_notices_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = SinkDispatcher()
    dispatcher.attach([])
    dispatcher.warn("nobody listens")
    assert ("distillkit", logging.WARNING, "nobody listens") in caplog.record_tuples


async def test_what_a_plugin_tells_is_a_note_unless_it_says_that_it_is_a_warning() -> None:
    dispatcher, sink = SinkDispatcher(), ListSink()
    dispatcher.attach([sink])
    run = replace(make_context(), tell=dispatcher.tell)
    run.notify("loading what is there")
    run.notify("it does not answer", "warning")
    run.notify_as("teacher 'a'")("it does not answer", "warning")
    shown = [event.shown for event in sink.events if isinstance(event, Notice)]
    who = "warning: teacher 'a': it does not answer"
    assert shown == ["note: loading what is there", "warning: it does not answer", who]


async def test_notes_and_warnings_have_their_level_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "distillkit")
    for kind in ("note", "warning"):
        SinkDispatcher().tell(Notice("said", kind))
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.WARNING]
