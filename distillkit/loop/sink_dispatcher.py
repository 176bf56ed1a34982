"""Hands events to the sinks, none of which can end a run."""

import logging
from collections import Counter
from collections.abc import Sequence

from distillkit.context import RunContext, log_level
from distillkit.errors import error_text
from distillkit.events import Activity, Event, Notice, PhaseStarted
from distillkit.files.redaction import redact
from distillkit.loop.run_story import RunStory
from distillkit.roles.attribution import named
from distillkit.roles.sink import Sink

log = logging.getLogger("distillkit")
LOGGED = 3
"""How many exceptions of each sink are logged in full."""


class SinkDispatcher:
    """Hands every event to every sink that is open; counts and logs what goes wrong there."""

    def __init__(self) -> None:
        """No sinks yet: notices go to the log alone, and are repeated once sinks are attached."""
        self._sinks: list[Sink] | None = None
        self._early: list[Notice] = []
        self._story = RunStory()
        self._told: set[int] = set()
        """The sinks of which the user knows that they fail."""
        self.failures: Counter[str] = Counter()

    async def open_sink(self, sink: Sink, run: RunContext) -> bool:
        """Open a sink; return whether it is open. If not, the user is warned and the run goes on without it."""
        try:
            await sink.open(run)
        except Exception as error:
            self.failures[sink.name] += 1
            log.exception("sink %r failed in open()", sink.name)
            self.warn(f"sink {sink.name!r} could not be opened and hears nothing: {error_text(error)}")
            return False
        return True

    async def close_sink(self, sink: Sink) -> None:
        """Close a sink, which hears nothing any more. Where it fails, the user is warned."""
        if self._sinks is not None:
            self._sinks = [each for each in self._sinks if each is not sink]
        try:
            await sink.close()
        except Exception as error:
            self.failures[sink.name] += 1
            log.exception("sink %r failed in close()", sink.name)
            self.warn(f"sink {sink.name!r} failed when it was closed: {error_text(error)}")

    def log_early(self) -> None:
        """Write into `run.log`, which is open now, what was noticed before there was one."""
        for notice in self._early:
            _log(notice)

    def attach(self, sinks: Sequence[Sink]) -> None:
        """Begin with these sinks. Called once, with all that are open: they hear now what was noticed before."""
        self._sinks = list(sinks)
        early, self._early = self._early, []
        for notice in early:
            self.emit(notice)

    def emit(self, event: Event) -> None:
        """Hand an event to every sink, and its line to `run.log`. Never raises."""
        line = self._story.line(event)
        if line is not None:
            log.info("%s", line, extra={"shown_by_sinks": True})
        new = [told for sink in self._sinks or () if (told := self._hand(event, sink)) is not None]
        for told in new:
            self.warn(told)

    def _hand(self, event: Event, sink: Sink) -> str | None:
        """Hand an event to one sink. What the user is to read where it fails at an event for the first time."""
        try:
            sink.emit(event)
        except Exception as error:
            first = id(sink) not in self._told
            self._told.add(id(sink))
            self.failures[sink.name] += 1
            if self.failures[sink.name] <= LOGGED:
                log.exception("sink %r failed at %s", sink.name, type(event).__name__)
            why = error_text(error)
            return f"{named(sink)} failed at {type(event).__name__}, and the run goes on: {why}" if first else None
        return None

    def report_failures(self) -> None:
        """Tell how often each sink failed, when the run is about to end."""
        for name, count in tuple(self.failures.items()):
            times = "once" if count == 1 else f"{count} times"
            self.warn(f"sink {name!r} failed {times}: what it was to show or keep may be missing; run.log says why")

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
