"""What is shown while a command loads, samples and scores: on a terminal at its foot, elsewhere a line now and then."""

import threading
import time

from rich.status import Status

from distillkit.cli.reporting import ERR
from distillkit.events import PhaseProgress

DOING = {"sample": "sampling", "score": "scoring"}


BEAT_S = 10.0
"""Without a terminal, what is done is said every so many seconds, so that a log tells a slow load from a hang."""


class Working:
    """A line at the foot of the terminal, gone when the block ends; in a pipe or a file, one every ten seconds."""

    def __init__(self, doing: str = "loading ...", *, quiet: bool) -> None:
        """`doing`: what is done first; `quiet`: no line, which is progress and no result."""
        self._doing, self._ended = doing, threading.Event()
        self._beats = None if quiet or ERR.is_terminal else threading.Thread(target=self._beat, daemon=True)
        self._status = None if quiet else Status(doing, console=ERR)

    def __enter__(self) -> "Working":
        """Show the line."""
        if self._status is not None:
            self._status.start()
        if self._beats is not None:
            self._beats.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take it away."""
        self.stop()

    def stop(self) -> None:
        """Take it away before the block ends."""
        self._ended.set()
        if self._beats is not None:
            self._beats.join()
        if self._status is not None:
            self._status.stop()

    def progress(self, event: PhaseProgress) -> None:
        """Say how far it is."""
        self.say(f"{DOING[event.phase]} {event.done}/{event.total}")

    def say(self, doing: str) -> None:
        """Say what is done now."""
        self._doing = doing
        if self._status is not None:
            self._status.update(doing)

    def _beat(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(BEAT_S):
            ERR.print(f"{self._doing} ({time.monotonic() - began:.0f} s)")
