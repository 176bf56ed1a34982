"""Blocking calls of the SDK, from a coroutine, whose errors end the run."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from distillkit.errors import DistillkitError, RunFailedError
from distillkit_builtin.fireworks.sdk_errors import run_failed
from distillkit_builtin.remote.blocking_calls import start_in_thread

T = TypeVar("T")


async def call_in_thread(what: str, timeout: float | None, function: Callable[[], T]) -> T:
    """The result of `function`; whatever it raises ends the run, as a `RunFailedError` that says `what` was done.

    Raises:
        RunFailedError: if it raised, or gave no response within `timeout` seconds (the thread may go on then).
    """
    future = start_in_thread(function, f"fireworks: {what}")
    try:
        async with asyncio.timeout(timeout) as limit:
            return await future
    except DistillkitError:
        raise
    except Exception as error:
        if limit.expired():
            raise RunFailedError(f"{what}: no response within {timeout:g} s") from error
        raise run_failed(what, error) from error
