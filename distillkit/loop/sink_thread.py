"""A sink in a thread of its own, with an event loop of its own: whatever it does there, the run goes on.

Usually an event is taken before the run goes on, as if there were no thread; so what a sink does at a step is done at
that step. A sink that takes its time is waited for for a few seconds in all, and then no more.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal, TypeVar

from distillkit.events import Event, PhaseProgress, PhaseStarted
from distillkit.roles.sink import Sink

T = TypeVar("T")
WAITED_SECONDS = 5.0
"""How long a run waits, in all, for one sink to take its events."""
MOST_PROGRESS = 1000
"""A sink with so many events still to take gets no more of what is true for a moment only."""
MOST_WAITING = 10_000
"""Events that wait for a sink; beyond them new ones are dropped, and counted: a long run must not fill the memory."""
PROGRESS_SECONDS = 0.05
"""Progress that comes faster waits so long, and then comes together: to wake a thread costs more than all the rest."""


class DaemonThreads(ThreadPoolExecutor):
    """What `asyncio.to_thread` uses in a sink: a thread each, which the end of the process does not wait for."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":  # noqa: ANN401 - as the base
        """Call `fn` in a new thread."""
        future: Future[T] = Future()

        def call() -> None:
            future.set_running_or_notify_cancel()
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
                future.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return future


@dataclass(slots=True)
class Delivery:
    """An event on its way to a sink."""

    event: Event
    taken: threading.Event | None = None
    """Set once it is taken; None where nobody waits for that: it costs more than all else of a delivery."""

    @property
    def kind(self) -> str:
        """What it is called."""
        return type(self.event).__name__


@dataclass(frozen=True, slots=True)
class Unreturned:
    """A method of a sink that did not return in time."""

    seconds: float
    """How long it was waited for."""


class SinkThread:
    """The thread of one sink."""

    def __init__(self, sink: Sink) -> None:
        """Start it."""
        self.sink = sink
        self._failed: deque[tuple[str, BaseException]] = deque()
        self.dropped = 0
        """Events that it never gets, since so many waited."""
        self._pending: deque[Delivery] = deque()
        self._woken: Literal["no", "soon", "now"] = "no"
        """Whether it is about to take what is pending."""
        self._woken_at = -PROGRESS_SECONDS
        self._handing = threading.Lock()
        """Held while events are put behind each other; never while the sink takes one."""
        self._method: asyncio.Task[None] | None = None
        self._began: float | None = None
        self._to_wait = WAITED_SECONDS
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(DaemonThreads())
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    async def attempt(
        self, method: Callable[[], Coroutine[Any, Any, None]], seconds: float
    ) -> BaseException | Unreturned | None:
        """Await a method of the sink, in its thread, behind all events so far. What it raised; None: it did well.

        One that has not begun in time never does; one that has is cancelled when the thread ends.
        """
        raised: Future[BaseException | None] = Future()

        def begin() -> None:
            if raised.set_running_or_notify_cancel():
                self._method = self._loop.create_task(_tell_what_is_raised(method, raised))

        self._loop.call_soon_threadsafe(self._after_pending, begin)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(raised)
        except TimeoutError:
            return Unreturned(seconds)

    def hand(self, event: Event) -> None:
        """Give it an event. Returns once that is taken, or at once where it had all the time that it gets."""
        passing = isinstance(event, PhaseProgress)
        with self._handing:
            if len(self._pending) >= (
                MOST_PROGRESS if isinstance(event, PhaseProgress | PhaseStarted) else MOST_WAITING
            ):
                self.dropped += not isinstance(event, PhaseProgress | PhaseStarted)
                return
            waits = not passing and self._to_wait > 0 and threading.current_thread() is not self._thread
            taken = threading.Event() if waits else None
            self._pending.append(Delivery(event, taken))
            self._wake(at_once=not passing)
        if taken is not None:
            started = time.perf_counter()
            taken.wait(self._to_wait)
            self._to_wait -= time.perf_counter() - started

    def _wake(self, *, at_once: bool) -> None:
        """Let it take what is pending: now, or soon if it was woken a moment ago."""
        now = time.perf_counter()
        if at_once or now - self._woken_at >= PROGRESS_SECONDS:
            if self._woken != "now":
                self._woken, self._woken_at = "now", now
                self._loop.call_soon_threadsafe(self._deliver)
        elif self._woken == "no":
            self._woken = "soon"
            self._loop.call_soon_threadsafe(self._loop.call_later, PROGRESS_SECONDS, self._deliver)

    def has_trouble(self, seconds: float) -> bool:
        """Whether there are failures to take, or it has been at one event for longer than `seconds`."""
        return bool(self._failed) or (self._began is not None and self.seconds_at_event() > seconds)

    def take_failures(self) -> Iterator[tuple[str, BaseException]]:
        """Which events it raised at, and what; each once, whichever threads ask."""
        with suppress(IndexError):
            while self._failed:
                yield self._failed.popleft()

    def seconds_at_event(self) -> float:
        """How long it has been at one event; 0 while it is at none."""
        began = self._began
        return 0.0 if began is None else time.perf_counter() - began

    def left(self) -> list[str]:
        """What it has not taken, the oldest first: kinds of events that are not for a moment only."""
        waiting = [each for each in tuple(self._pending) if not isinstance(each.event, PhaseProgress | PhaseStarted)]
        return [each.kind for each in waiting]

    def end(self) -> None:
        """End the thread, unless the sink holds it."""
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(0.0 if self._pending else 1.0)

    def _deliver(self) -> None:
        """Take one event, or all progress that is there by now; what the sink began then, as a task, has its turn."""
        waiting = tuple(self._pending)
        progress = tuple(takewhile(lambda delivery: isinstance(delivery.event, PhaseProgress), waiting))
        for delivery in progress or waiting[:1]:
            self._take(delivery)
        with self._handing:
            self._woken = "now" if self._pending else "no"
            if self._pending:
                self._loop.call_soon(self._deliver)

    def _take(self, delivery: Delivery) -> None:
        self._began = time.perf_counter()
        try:
            self.sink.emit(delivery.event)
        except BaseException as error:  # noqa: BLE001 - the dispatcher reports it, or raises it in the run
            self._failed.append((delivery.kind, error))
        self._began = None
        self._pending.popleft()
        if delivery.taken is not None:
            delivery.taken.set()

    def _after_pending(self, begin: Callable[[], None]) -> None:
        """Take what is pending, and then begin."""
        for delivery in tuple(self._pending):
            self._take(delivery)
        begin()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


async def _tell_what_is_raised(
    method: Callable[[], Coroutine[Any, Any, None]], raised: "Future[BaseException | None]"
) -> None:
    try:
        await method()
    except BaseException as error:  # noqa: BLE001 - the dispatcher reports it, or raises it in the run
        raised.set_result(error)
    else:
        raised.set_result(None)
