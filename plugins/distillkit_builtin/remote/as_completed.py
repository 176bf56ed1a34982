"""Many requests at once, each outcome as soon as it is there. How many are under way is the backend's own say."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def as_they_come(requests: Sequence[A], answer: Callable[[A], Awaitable[B]]) -> AsyncIterator[B]:
    """The outcomes, in order of arrival; the first exception ends it, and whoever stops reading stops the rest."""
    tasks = {asyncio.ensure_future(answer(request)) for request in requests}
    try:
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
