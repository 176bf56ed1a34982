"""The thread of a sink: how often it is woken, what it may keep waiting, and how it ends."""

import asyncio
import threading
import warnings
from typing import ClassVar

import pytest
from pydantic import PrivateAttr

from distillkit.context import RunContext
from distillkit.events import Event, Notice, PhaseProgress
from distillkit.loop import sink_thread
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.loop.sink_thread import SinkThread, Unreturned
from distillkit.testing import ListSink, make_context


class Held(ListSink):
    """Takes nothing until it is let go."""

    name: ClassVar[str] = "held"
    closing_seconds: ClassVar[float] = 5.0
    _free: threading.Event = PrivateAttr(default_factory=threading.Event)

    def emit(self, event: Event) -> None:
        self._free.wait(10)
        super().emit(event)


class OpensLong(ListSink):
    """Opens for a minute."""

    async def open(self, run: RunContext) -> None:
        await asyncio.sleep(60)


def sink_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sink ")]


async def test_much_progress_wakes_it_a_few_times_and_all_of_it_comes_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_thread, "PROGRESS_SECONDS", 0.5)
    monkeypatch.setattr(sink_thread, "MOST_PROGRESS", 10_000)
    sink = ListSink()
    thread, woken = SinkThread(sink), 0
    wake = thread._loop.call_soon_threadsafe

    def counted(*given: object) -> object:
        nonlocal woken
        woken += 1
        return wake(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(thread._loop, "call_soon_threadsafe", counted)
    events = [PhaseProgress("sample", done, 2000) for done in range(1, 2001)]
    for event in events:
        thread.hand(event)
    assert woken < 100
    thread.hand(Notice("behind all of it"))
    assert sink.events == [*events, Notice("behind all of it")]
    thread.end()


async def test_progress_that_waited_comes_in_one_turn_and_tasks_have_theirs_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_thread, "PROGRESS_SECONDS", 60.0)
    turns: list[int] = []

    class Begins(ListSink):
        """Begins a task at each event, which notes how many events had come when it ran."""

        def emit(self, event: Event) -> None:
            super().emit(event)
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(self.events)))

    thread = SinkThread(Begins())
    thread.hand(Notice("the first"))
    for done in range(100):
        thread.hand(PhaseProgress("sample", done, 100))
    for text in ("behind it", "and behind that"):
        thread.hand(Notice(text))
    assert await thread.attempt(thread.sink.close, 5) is None
    assert turns[:2] == [1, 101]
    assert turns[-2:] == [102, 103]
    thread.end()


async def test_progress_comes_though_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_thread, "PROGRESS_SECONDS", 0.01)
    sink = ListSink()
    thread = SinkThread(sink)
    for done in (1, 2, 3):
        thread.hand(PhaseProgress("sample", done, 3))
    for _ in range(500):
        if len(sink.events) == 3:
            break
        await asyncio.sleep(0.01)
    assert len(sink.events) == 3
    thread.end()


async def test_what_is_dropped_of_a_queue_that_is_full_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_thread, "MOST_WAITING", 5)
    monkeypatch.setattr(sink_thread, "WAITED_SECONDS", 0.01)
    dispatcher, held, shown = SinkDispatcher(), Held(), ListSink()
    for sink in (held, shown):
        assert await dispatcher.open_sink(sink, make_context())
    dispatcher.attach([held, shown])
    for number in range(12):
        dispatcher.notice(str(number))
    held._free.set()
    await dispatcher.close_sink(held)
    told = [event.message for event in shown.events if isinstance(event, Notice)]
    assert [each for each in told if "held" in each] == [
        "sink 'held' was too slow: 7 events never reached it; what it was to show or keep may be missing"
    ]
    assert [event.message for event in held.events if isinstance(event, Notice)] == ["0", "1", "2", "3", "4"]
    await dispatcher.close_sink(shown)


async def test_a_method_that_never_began_leaves_no_coroutine_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_thread, "WAITED_SECONDS", 0.01)
    held = Held()
    thread = SinkThread(held)
    thread.hand(Notice("it is at this"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await thread.attempt(held.close, 0.05) == Unreturned(0.05)
        thread.end()
        held._free.set()
        thread._thread.join(5)
    assert not thread._thread.is_alive()
    assert thread._loop.is_closed()


async def test_an_interrupt_while_a_sink_opens_ends_its_thread() -> None:
    before = set(sink_threads())
    opening = asyncio.ensure_future(SinkDispatcher().open_sink(OpensLong(), make_context()))
    await asyncio.sleep(0.05)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not set(sink_threads()) - before


class Quick(ListSink):
    """Is open or closed before whoever waits for that has heard of it; `done` is set then."""

    _done: threading.Event = PrivateAttr(default_factory=threading.Event)

    async def open(self, run: RunContext) -> None:
        asyncio.get_running_loop().call_soon(self._done.set)  # behind what tells the run of it

    async def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._done.set)


@pytest.mark.parametrize("method", ["open", "close"])
async def test_an_interrupt_at_the_moment_at_which_a_sink_is_ready_is_not_lost(method: str) -> None:
    """As `asyncio.wait_for` of Python 3.11 would lose it: the run went on then, as if nobody had pressed Ctrl-C."""
    before, dispatcher, sink = set(sink_threads()), SinkDispatcher(), Quick()
    if method == "close":
        assert await dispatcher.open_sink(sink, make_context())
        sink._done.clear()
    work = dispatcher.open_sink(sink, make_context()) if method == "open" else dispatcher.close_sink(sink)
    task = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    assert sink._done.wait(10)  # this thread's event loop hears of it in its next turn
    await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not set(sink_threads()) - before
