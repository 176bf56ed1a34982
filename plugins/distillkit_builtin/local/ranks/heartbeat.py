"""Whether a peer is still there: a host without power, or behind a network that is cut, closes no connection."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

TICK_SECONDS = 10.0
"""How often each side says that it is alive."""
SILENT_TICKS = 30
"""After so many ticks without any message a peer is given up. Ticks, not time: one who slept counts one."""


class Heartbeat:
    """Says to peers that this process is alive, and counts the ticks since each said something."""

    def __init__(self, peers: Iterable[int]) -> None:
        """All are taken to have been heard of just now."""
        self._silent = dict.fromkeys(peers, 0)

    def heard(self, peer: int) -> None:
        """A message of the peer came, which may have been given up before."""
        if peer in self._silent:
            self._silent[peer] = 0

    async def beat(self, say: Callable[[int], Awaitable[None]], give_up: Callable[[int, str], None]) -> None:
        """Until cancelled: `say` to each peer at each tick, and `give_up` one, with the reason, that is silent."""
        while self._silent:
            await asyncio.sleep(TICK_SECONDS)
            for peer in [*self._silent]:
                self._silent[peer] += 1
                if self._silent[peer] < SILENT_TICKS:
                    await say(peer)
                    continue
                del self._silent[peer]
                give_up(peer, f"nothing was heard of it for {SILENT_TICKS * TICK_SECONDS:.0f} s")
