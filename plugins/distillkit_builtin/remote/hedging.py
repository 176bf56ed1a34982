"""The same request to a second replica, where the first takes long: Dean and Barroso, "The Tail at Scale" (2013)."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distillkit_builtin.remote.results import AttemptError, RefusedError, Result

SHARE = 10
"""One in so many requests may be hedged at once, so that a service that is slow as a whole does not get each twice."""


@dataclass(slots=True)
class Hedging:
    """How many requests are hedged now. They come on top of the window, at most a tenth of it."""

    after: float
    """Seconds without a response."""
    active: int = 0

    def may_start(self, in_flight: int) -> bool:
        """Whether one more of the `in_flight` requests may be hedged; one always may."""
        return self.active < max(1, in_flight // SHARE)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one hedge inside the block."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


async def race(
    first: Coroutine[Any, Any, Result], second: Callable[[], Coroutine[Any, Any, Result | None]], after: float
) -> Result:
    """The first result; `second` starts `after` seconds without one, and gives None where it may not run.

    Raises:
        RefusedError, AttemptError: that of `first`. Those of `second` count for nothing.
    """
    original = asyncio.create_task(first)
    tasks: list[asyncio.Task[Any]] = [original]
    try:
        await asyncio.wait(tasks, timeout=after)
        if not original.done():
            tasks.append(asyncio.create_task(second()))
        waiting = set(tasks)
        while waiting and not _is_refused(original):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            results = [result for task in done if (result := _result_of(task)) is not None]
            if results:
                return results[0]
        return original.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_refused(task: asyncio.Task[Result]) -> bool:
    return task.done() and isinstance(task.exception(), RefusedError)


def _result_of(task: asyncio.Task[Result | None]) -> Result | None:
    return None if isinstance(task.exception(), AttemptError | RefusedError) else task.result()
