"""Waiting for work that a student does, and no longer than the student can go on."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from distillkit.roles.student import Student

T = TypeVar("T")


async def unless_broken(work: Coroutine[Any, Any, T], student: Student) -> T:
    """The result of `work`; raises why the student cannot go on, as soon as it says so."""
    working, broken = asyncio.ensure_future(work), asyncio.ensure_future(student.until_broken())
    try:
        await asyncio.wait((working, broken), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await broken
        await working
    finally:
        cancelled = await _cancel_and_wait(working, broken)
    if cancelled is not None:
        raise cancelled
    return working.result()


async def _cancel_and_wait(*tasks: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Cancel what is not done, and wait until it has come to its end, however often this is cancelled meanwhile.

    Returns the last cancellation, for whoever has no other exception to raise.
    """
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # so that it counts as seen
    return cancelled
