"""Hands events to the sinks, none of which can end a run."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from distillkit.context import RunContext
from distillkit.events import Event, Notice
from distillkit.files.redaction import redact
from distillkit.loop.run_story import story_line
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
        self.failures: Counter[str] = Counter()

    async def open_sink(self, sink: Sink, run: RunContext) -> bool:
        """Open a sink; return whether it is open. If not, the user is warned and the run goes on without it."""
        try:
            await sink.open(run)
        except Exception as error:
            self.failures[sink.name] += 1
            log.exception("sink %r failed in open()", sink.name)
            self.warn(f"sink {sink.name!r} could not be opened and hears nothing: {type(error).__name__}: {error}")
            return False
        return True

    async def close_sink(self, sink: Sink) -> None:
        """Close a sink, whatever it makes of that."""
        try:
            await sink.close()
        except Exception:
            self.failures[sink.name] += 1
            log.exception("sink %r failed in close()", sink.name)

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
        line = story_line(event)
        if line is not None:
            log.info("%s", redact(line), extra={"shown_by_sinks": True})
        for sink in self._sinks or ():
            try:
                sink.emit(event)
            except Exception:
                self.failures[sink.name] += 1
                if self.failures[sink.name] <= LOGGED:
                    log.exception("sink %r failed at %s", sink.name, type(event).__name__)

    def notice(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """Show the user a message, on the terminal and in `run.log`; secrets in it are redacted."""
        notice = Notice(redact(message), level)
        _log(notice)
        if self._sinks is None:
            self._early.append(notice)
        else:
            self.emit(notice)

    def warn(self, message: str) -> None:
        """`notice` at level warning."""
        self.notice(message, "warning")


def _log(notice: Notice) -> None:
    level = logging.WARNING if notice.level == "warning" else logging.INFO
    log.log(level, "%s", notice.message, extra={"shown_by_sinks": True})
