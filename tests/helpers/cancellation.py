"""A cancellation at each moment of some work: whatever ends at that moment too, it comes out as one."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
MOST_TURNS = 500


async def count_cancellations(begin: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Begin the work anew for each turn of the event loop that it takes, and cancel it in that turn.

    `asyncio.wait_for` of Python 3.11 returns what it waited for, if that ends in the turn in which it is cancelled, and
    whoever cancelled it waits for ever, or sees it go on.

    Returns in which turn it had ended, and was not cancelled.

    Raises:
        AssertionError: if a cancellation is lost, or the work has no end.
    """
    for turns in range(1, MOST_TURNS):
        work = asyncio.ensure_future(begin())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not work.cancel():
            await work
            return turns
        await asyncio.wait([work])
        assert work.cancelled(), f"a cancellation in turn {turns} is lost"
    raise AssertionError(f"no end within {MOST_TURNS} turns")


def called_soon(function: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Stands for `start_in_thread`: the result, in the next turn of the event loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    loop.call_soon(lambda: future.done() or future.set_result(function()))
    return future
