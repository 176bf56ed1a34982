"""The same request to a second replica, where the first takes long: Dean and Barroso, "The Tail at Scale" (2013)."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distillkit_builtin.remote.results import Answer, AttemptError, RefusedError

SHARE = 10
"""One in so many requests may be hedged at once, so that a service that is slow as a whole is not asked twice."""


@dataclass(slots=True)
class Hedging:
    """How many requests are hedged now. They come on top of the window, at most a tenth of it."""

    after: float
    """Seconds without an answer."""
    active: int = 0

    def may_start(self, in_flight: int) -> bool:
        """Whether one more of the `in_flight` requests may be hedged; one always may."""
        return self.active < max(1, in_flight // SHARE)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """One hedge."""
        self.active += 1
        try:
            yield
        finally:
            self.active -= 1


async def race(
    first: Coroutine[Any, Any, Answer], second: Callable[[], Coroutine[Any, Any, Answer | None]], after: float
) -> Answer:
    """The first good answer; `second` is asked `after` seconds without one, and gives None where it may not run.

    Raises:
        RefusedError, AttemptError: that of the first. The second's own are of no interest: nobody needed it.
    """
    asked = asyncio.create_task(first)
    tasks: list[asyncio.Task[Any]] = [asked]
    try:
        await asyncio.wait(tasks, timeout=after)
        if not asked.done():
            tasks.append(asyncio.create_task(second()))
        waiting = set(tasks)
        while waiting and not _is_refused(asked):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            answers = [answer for task in done if (answer := _answer_of(task)) is not None]
            if answers:
                return answers[0]
        return asked.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _is_refused(task: asyncio.Task[Answer]) -> bool:
    return task.done() and isinstance(task.exception(), RefusedError)


def _answer_of(task: asyncio.Task[Answer | None]) -> Answer | None:
    return None if isinstance(task.exception(), AttemptError | RefusedError) else task.result()
