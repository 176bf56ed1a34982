"""Whether a peer is still there: a host without power, or behind a network that is cut, closes no connection."""

import asyncio
import threading
from collections.abc import Callable, Iterable

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

    async def beat(self, say: Callable[[int], None], give_up: Callable[[int, str], None]) -> None:
        """Until cancelled: `say` to each peer at each tick, and `give_up` one, with the reason, that is silent.

        `say` must not wait. It is called in a thread: an event loop that a plugin keeps busy is no sign of death.
        """
        over = threading.Event()
        speaker = threading.Thread(target=self._speak, args=(say, over), daemon=True, name="distillkit-alive")
        speaker.start()
        try:
            while self._silent:
                await asyncio.sleep(TICK_SECONDS)
                for peer in [*self._silent]:
                    self._silent[peer] += 1
                    if self._silent[peer] >= SILENT_TICKS:
                        del self._silent[peer]
                        give_up(peer, f"nothing was heard of it for {SILENT_TICKS * TICK_SECONDS:.0f} s")
        finally:
            over.set()
            speaker.join()  # nothing is said behind the last message, which nobody would take

    def _speak(self, say: Callable[[int], None], over: threading.Event) -> None:
        while not over.wait(TICK_SECONDS):
            for peer in [*self._silent]:
                say(peer)
