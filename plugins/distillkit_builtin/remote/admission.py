"""Which request may be sent now: a queue in front of the window, in the order in which requests came.

A request keeps its ticket for all its attempts, so one that is tried again goes before those that came after it. While
it backs off it holds no slot.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from distillkit_builtin.remote.aimd_window import AimdWindow


class Admission:
    """Admits requests to the slots of one window, in the order of their tickets."""

    def __init__(self, window: AimdWindow) -> None:
        """`window` says how many there are; it may shrink below what is in use, which then runs out by itself."""
        self.window = window
        self.in_use = 0
        self.peak = 0
        """The most in use since `take_peak`."""
        self._tickets = count()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waits = count()

    def ticket(self) -> int:
        """A new ticket; requests with lower numbers are sent first."""
        return next(self._tickets)

    @property
    def is_full(self) -> bool:
        """Whether as many requests are under way as may be."""
        return self.in_use >= self.window.size

    @asynccontextmanager
    async def slot(self, ticket: int) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside the block. Cancellation gives it back at once."""
        await self._enter(ticket)
        try:
            yield
        finally:
            self._leave()

    def take_peak(self) -> int:
        """The most slots in use since the last call."""
        peak, self.peak = self.peak, self.in_use
        return peak

    async def _enter(self, ticket: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (ticket, next(self._waits), granted))
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
        while self._queue and not self.is_full:
            _, _, granted = heapq.heappop(self._queue)
            if not granted.done():  # else whoever waited was cancelled
                granted.set_result(None)
                self.in_use += 1
                self.peak = max(self.peak, self.in_use)
