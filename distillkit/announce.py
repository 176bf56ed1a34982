"""Telling the sinks, none of which can end a run."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from distillkit.events import Event, Notice
from distillkit.roles import Sink

log = logging.getLogger("distillkit")


class Announcer:
    """Hands every event to every sink that is open; counts and logs what goes wrong there."""

    def __init__(self) -> None:
        """No sinks yet: notices go to the log alone, and are told again once sinks are open."""
        self._sinks: list[Sink] = []
        self._early: list[Notice] = []
        self.failures: Counter[str] = Counter()

    def attach(self, sinks: Sequence[Sink]) -> None:
        """Start to tell these sinks."""
        self._sinks.extend(sinks)
        early, self._early = self._early, []
        for notice in early:
            self.emit(notice)

    def emit(self, event: Event) -> None:
        """Tell every sink. Never raises."""
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception:
                self.failures[sink.name] += 1
                if self.failures[sink.name] <= 3:
                    log.exception("sink %r failed at %s", sink.name, type(event).__name__)

    def notice(self, message: str, level: Literal["info", "warning"] = "info") -> None:
        """Tell the user something, on the terminal and in `run.log`."""
        log.log(logging.WARNING if level == "warning" else logging.INFO, "%s", message)
        notice = Notice(message, level)
        if self._sinks:
            self.emit(notice)
        else:
            self._early.append(notice)

    def warn(self, message: str) -> None:
        """`notice` at level warning."""
        self.notice(message, "warning")
