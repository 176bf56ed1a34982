"""Several asynchronous streams as one."""

import asyncio
from collections.abc import AsyncIterator, Iterable


async def merge_streams(streams: Iterable[AsyncIterator[object]]) -> AsyncIterator[object]:
    """What several streams yield, as it comes. When one raises, or the consumer stops, all end."""
    queue: asyncio.Queue[object] = asyncio.Queue()
    ended = object()

    async def drain(stream: AsyncIterator[object]) -> None:
        try:
            async for value in stream:
                queue.put_nowait(value)
        finally:
            queue.put_nowait(ended)

    tasks = [asyncio.create_task(drain(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            value = await queue.get()
            if value is not ended:
                yield value
                continue
            left -= 1
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
