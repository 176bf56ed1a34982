"""Ctrl-C and SIGTERM: the first one finishes the step in hand and saves, the second one stops at once."""

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from distillkit.loop.engine import Engine
from distillkit.ranks import ONLY, Rank

T = TypeVar("T")
log = logging.getLogger("distillkit")
SAME_SIGNAL_S = 1.0
"""torchrun passes a signal on that a scheduler may have sent to all processes already: two within this time are one."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Stopping:
    """What a signal means for one run: the first ends it after the step in hand, the second at once."""

    engine: Engine | None = None
    """Once there is one."""
    task: "asyncio.Task[Any] | None" = field(default=None, repr=False)
    rank: Rank = ONLY
    _asked: bool = False
    _asked_at: float = -SAME_SIGNAL_S

    def watch(self, engine: Engine) -> None:
        """The run whose step is to be finished."""
        self.engine = engine

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises KeyboardInterrupt once it was stopped and has closed what it opened."""
        self.task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            with suppress(NotImplementedError):  # Windows has no such handlers
                loop.add_signal_handler(number, self.stop)
        try:
            result: T = await self.task
            return result
        except asyncio.CancelledError:
            me = asyncio.current_task()
            if me is not None and me.cancelling():  # by asyncio.run, which makes a KeyboardInterrupt of it itself
                raise
            raise KeyboardInterrupt from None
        finally:
            for number in SIGNALS:
                with suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                if self.rank.count > 1:  # torchrun ends all as soon as one has ended, and why must be said before
                    signal.signal(number, signal.SIG_IGN)

    def stop(self) -> None:
        """Handle a signal: the first ends the run after its step, a further one at once."""
        now = time.monotonic()
        if self.rank.count > 1 and now - self._asked_at < SAME_SIGNAL_S:
            return
        self._asked_at = now
        waits_for = None if self._asked or self.engine is None else self.engine.request_stop()
        if self.engine is not None and waits_for is not None:
            self._asked = True
            self.engine.dispatcher.notice(f"stopping after {waits_for}; once more (Ctrl-C) stops at once")
        elif self.task is not None:
            self.task.cancel()
