"""Something is written every so often, so that a log of a run that waits says what it waits for."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field


@dataclass(slots=True)
class Heartbeat:
    """Calls `beat` from a thread of its own, whenever nothing was written for `every` seconds."""

    beat: Callable[[], None]
    every: float
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Count from now on."""
        self._last = self.clock()

    def start(self) -> None:
        """Begin; `stop` ends it, and so does the end of the process."""
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until nothing more is written."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def written(self) -> None:
        """Hear that something was written just now."""
        self._last = self.clock()

    def seconds_to_next(self) -> float:
        """How long until it is due, if nothing is written meanwhile."""
        return self._last + self.every - self.clock()

    def beat_if_due(self) -> None:
        """Call `beat` if it is time."""
        if self.seconds_to_next() <= 0:
            self.written()
            with suppress(OSError, ValueError):  # a closed or full output: what else is written there says so
                self.beat()

    def _run(self) -> None:
        while not self._ended.wait(max(0.05, self.seconds_to_next())):
            self.beat_if_due()
