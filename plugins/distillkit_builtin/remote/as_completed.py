"""Many requests at once, each outcome as soon as it is there. The backend limits how many are under way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def as_completed(requests: Sequence[A], send: Callable[[A], Awaitable[B]]) -> AsyncIterator[B]:
    """The outcomes of `send` for each of `requests`, in order of completion.

    The first exception of `send` is raised. It cancels the other requests, as does closing this iterator.
    """
    tasks = {asyncio.ensure_future(send(request)) for request in requests}
    done: set[asyncio.Task[B]] = set()
    try:
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while done:
                yield done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        # Those that failed at the same moment too: asyncio prints what nobody asks for, with keys that servers repeat.
        await asyncio.gather(*tasks, *done, return_exceptions=True)
