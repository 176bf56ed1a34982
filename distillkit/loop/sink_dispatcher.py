"""Hands events to the sinks, none of which can end a run, or hold it up."""

import logging
from collections import Counter
from collections.abc import Sequence

from distillkit.context import RunContext, log_level
from distillkit.data.counted import counted
from distillkit.errors import error_text
from distillkit.events import Activity, Event, Notice, PhaseStarted
from distillkit.files.redaction import redact
from distillkit.loop.run_story import RunStory
from distillkit.loop.sink_thread import SinkThread, Unreturned
from distillkit.roles.attribution import named
from distillkit.roles.sink import Sink

log = logging.getLogger("distillkit")
LOGGED = 3
"""How many exceptions of each sink are logged in full."""
OPEN_SECONDS = 120.0
"""How long the beginning of a run waits until a sink is open."""
STUCK_SECONDS = 30.0
"""The user is told of a sink that has been at one event for so long."""
MISSING = "what it was to show or keep may be missing"


class SinkDispatcher:
    """Hands every event to every sink that is open; counts and logs what goes wrong there."""

    def __init__(self) -> None:
        """No sinks yet: notices go to the log alone, and are repeated once sinks are attached."""
        self._sinks: list[SinkThread] | None = None
        self._threads: dict[int, SinkThread] = {}
        """By the id of the sink."""
        self._early: list[Notice] = []
        self._story = RunStory()
        self._told: set[int] = set()
        """The sinks of which the user knows that they fail."""
        self._stuck: set[int] = set()
        """The sinks of which the user knows that they take no more."""
        self.failures: Counter[str] = Counter()

    async def open_sink(self, sink: Sink, run: RunContext) -> bool:
        """Open a sink; return whether it is open. If not, the user is warned and the run goes on without it."""
        thread = self._thread(sink)
        try:
            found = await thread.attempt(lambda: sink.open(run), OPEN_SECONDS)
        except BaseException:  # an interrupt: nobody closes what is not open
            thread.end()
            raise
        if found is None:
            return True
        why = self._count(sink, "open()", found)
        self.warn(f"sink {sink.name!r} could not be opened and hears nothing: {why}")
        thread.end()
        return False

    async def close_sink(self, sink: Sink) -> None:
        """Close a sink once it has taken all events, or after the time that it gets, whatever it makes of that."""
        thread = self._thread(sink)
        try:
            found = await thread.attempt(sink.close, sink.closing_seconds)
            self._sinks = [each for each in self._sinks or () if each is not thread]
            self._tell_end(thread, found)
        finally:
            thread.end()

    def _tell_end(self, thread: SinkThread, found: BaseException | Unreturned | None) -> None:
        """Tell what a sink missed, and what came of its `close`."""
        sink = thread.sink
        for told in self._failures_of(thread):
            self.warn(told)
        if thread.dropped:
            missed = counted(thread.dropped, "event")
            self.warn(f"sink {sink.name!r} was too slow: {missed} never reached it; {MISSING}")
        if found is not None:
            left = thread.left()
            why = self._count(sink, "close()", found)
            lost = f"{counted(len(left), 'event')}, from a {left[0]} on, never reached it" if left else MISSING
            self.warn(f"sink {sink.name!r} could not be closed: {why}; {lost}")

    def log_early(self) -> None:
        """Write into `run.log`, which is open now, what was noticed before there was one."""
        for notice in self._early:
            _log(notice)

    def attach(self, sinks: Sequence[Sink]) -> None:
        """Begin with these sinks. Called once, with all that are open: they hear now what was noticed before."""
        self._sinks = [self._thread(sink) for sink in sinks]
        early, self._early = self._early, []
        for notice in early:
            self.emit(notice)

    def emit(self, event: Event) -> None:
        """Hand an event to every sink, and its line to `run.log`. Raises only what is no Exception, as an interrupt."""
        line = self._story.line(event)
        if line is not None:
            log.info("%s", line, extra={"shown_by_sinks": True})
        threads = tuple(self._sinks or ())
        for thread in threads:
            thread.hand(event)
        troubled = [thread for thread in threads if thread.has_trouble(STUCK_SECONDS)]
        for told in [told for thread in troubled for told in self._failures_of(thread)]:
            self.warn(told)

    def _thread(self, sink: Sink) -> SinkThread:
        if id(sink) not in self._threads:
            self._threads[id(sink)] = SinkThread(sink)
        return self._threads[id(sink)]

    def _failures_of(self, thread: SinkThread) -> list[str]:
        """What the user is to read of a sink that failed at an event, or is stuck at one, for the first time."""
        sink, told = thread.sink, []
        for event, error in thread.take_failures():
            why = self._count(sink, event, error)
            if id(sink) not in self._told:
                self._told.add(id(sink))
                told.append(f"{named(sink)} failed at {event}, and the run goes on: {why}")
        if thread.seconds_at_event() > STUCK_SECONDS and id(sink) not in self._stuck:
            self._stuck.add(id(sink))
            told.append(
                f"{named(sink)} has been at one event for {thread.seconds_at_event():.0f} s: the run goes on, and what "
                "comes waits for it"
            )
        return told

    def _count(self, sink: Sink, where: str, found: BaseException | Unreturned) -> str:
        """Count and log a failure; why, in words. Raises what no sink may keep to itself, as an interrupt."""
        if isinstance(found, BaseException) and not isinstance(found, Exception):
            raise found
        self.failures[sink.name] += 1
        if isinstance(found, Unreturned):
            why = f"it did not return within {found.seconds:g} s"
            log.error("sink %r in %s: %s", sink.name, where, why)
            return why
        if self.failures[sink.name] <= LOGGED or where.endswith("()"):
            at = f"in {where}" if where.endswith("()") else f"at {where}"
            log.error("sink %r failed %s", sink.name, at, exc_info=found)
        return error_text(found)

    def report_failures(self) -> None:
        """Tell how often each sink failed, when the run is about to end."""
        for name, count in tuple(self.failures.items()):
            times = "once" if count == 1 else f"{count} times"
            self.warn(f"sink {name!r} failed {times}: {MISSING}; run.log says why")

    def phase(self, phase: Activity, what: str = "") -> None:
        """Tell the sinks what the run begins with."""
        self.emit(PhaseStarted(phase, what))

    def tell(self, notice: Notice) -> None:
        """Show the user a notice, on the terminal and in `run.log`; secrets in it are redacted."""
        notice = Notice(redact(notice.message), notice.kind)
        _log(notice)
        if self._sinks is None:
            self._early.append(notice)
        else:
            self.emit(notice)

    def warn(self, message: str) -> None:
        """Show the user a warning."""
        self.tell(Notice(message, "warning"))

    def notice(self, message: str) -> None:
        """Show the user a note."""
        self.tell(Notice(message))


def _log(notice: Notice) -> None:
    log.log(log_level(notice.kind), "%s", notice.message, extra={"shown_by_sinks": True})
