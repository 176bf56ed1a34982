"""Several requests that fail at the same moment: the first exception is raised, asyncio prints none of the others."""

import asyncio
import gc
from typing import Any

import pytest

from distillkit_builtin.remote.as_completed import as_completed


async def test_the_others_are_not_printed() -> None:
    printed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: printed.append(context))

    async def fail(number: int) -> int:
        raise ValueError(f"a server repeats the key {number}")

    with pytest.raises(ValueError, match="repeats the key"):
        await anext(as_completed(range(3), fail))
    gc.collect()
    assert printed == []


async def test_what_came_before_a_failure_is_given_out_once() -> None:
    async def send(number: int) -> int:
        await asyncio.sleep(0.01 * number)
        if number == 3:
            raise ValueError("the last")
        return number

    found: list[int] = []

    async def collect() -> None:
        async for each in as_completed(range(4), send):
            found.append(each)

    with pytest.raises(ValueError, match="the last"):
        await collect()
    assert sorted(found) == [0, 1, 2]
