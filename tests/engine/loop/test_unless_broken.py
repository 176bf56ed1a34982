"""Work that ends with its student: each way to its end, and a cancellation at any moment of it."""

import asyncio

import pytest
from helpers.cancellation import count_cancellations

from distillkit.errors import RunFailedError
from distillkit.loop.unless_broken import unless_broken
from distillkit.testing.fakes import FakeStudent


class EndsInTurns(FakeStudent):
    """Nothing breaks, and who waits for that takes a few turns of the event loop to be cancelled."""

    async def until_broken(self) -> None:
        try:
            await super().until_broken()
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)


class Broken(FakeStudent):
    """Broken from the start."""

    async def until_broken(self) -> None:
        raise RunFailedError("rank 3 is gone")


async def result() -> int:
    await asyncio.sleep(0)
    return 7


async def test_the_result_is_that_of_the_work() -> None:
    assert await unless_broken(result(), EndsInTurns()) == 7


async def test_what_broke_is_raised_and_the_work_is_cancelled() -> None:
    work = asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await work

    with pytest.raises(RunFailedError, match="rank 3 is gone"):
        await unless_broken(waiting(), Broken())
    assert work.cancelled()


async def test_a_cancellation_is_lost_at_no_moment_not_even_once_the_work_is_done() -> None:
    assert await count_cancellations(lambda: unless_broken(result(), EndsInTurns())) > 3
