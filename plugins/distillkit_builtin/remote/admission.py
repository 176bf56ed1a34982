"""Who may send now: a line in front of the window, in the order in which requests came, not in which they are retried.

A request keeps its place for all its attempts, so one that is tried again goes before those that came after it. While
it backs off it holds no slot.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from distillkit_builtin.remote.aimd_window import AimdWindow


class Gate:
    """The slots of one window."""

    def __init__(self, window: AimdWindow) -> None:
        """`window` says how many there are; it may shrink below what is in use, which then runs out by itself."""
        self.window = window
        self.in_use = 0
        self.peak = 0
        """The most in use since `take_peak`."""
        self._places = count()
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waits = count()

    def place(self) -> int:
        """A place in the line, behind all that were given before."""
        return next(self._places)

    @property
    def is_full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return self.in_use >= self.window.size

    @asynccontextmanager
    async def slot(self, place: int) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside the block. Cancellation gives it back at once."""
        await self._enter(place)
        try:
            yield
        finally:
            self._leave()

    def take_peak(self) -> int:
        """The most slots in use since the last call."""
        peak, self.peak = self.peak, self.in_use
        return peak

    async def _enter(self, place: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._line, (place, next(self._waits), granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():  # it was ours already
                self._leave()
            raise

    def _leave(self) -> None:
        self.in_use -= 1
        self._grant()

    def _grant(self) -> None:
        while self._line and not self.is_full:
            _, _, granted = heapq.heappop(self._line)
            if not granted.done():  # else whoever waited was cancelled
                granted.set_result(None)
                self.in_use += 1
                self.peak = max(self.peak, self.in_use)
