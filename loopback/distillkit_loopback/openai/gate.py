"""vLLM's `/pause?mode=wait` and `/resume`: requests under way are waited for, new ones wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Gate:
    """What requests that compute pass through."""

    def __init__(self) -> None:
        """Open, and nothing is under way."""
        self._changed = Condition()
        self._running = 0
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether new requests wait."""
        return self._paused

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Wait while it is paused; then the request is under way until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._paused)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def pause(self) -> None:
        """Let no new request begin; returns once those that are under way have ended."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: not self._running)

    def resume(self) -> None:
        """Let requests begin again."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()
