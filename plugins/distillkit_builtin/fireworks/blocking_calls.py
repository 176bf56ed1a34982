"""Blocking calls of the SDK, from a coroutine: each in a thread of its own, with a time-out, never in the way.

Not `asyncio.to_thread`: provisioning blocks for up to two days, and the event loop waits for its own threads when it
ends. These threads are daemons, so nothing that hangs keeps the process alive.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from distillkit.errors import DistillkitError, RunFailedError
from distillkit_builtin.fireworks.sdk_errors import run_failed

T = TypeVar("T")


async def call_in_thread(what: str, timeout: float | None, function: Callable[[], T]) -> T:
    """The result of `function`; whatever it raises ends the run, as a `RunFailedError` that says `what` was done.

    Raises:
        RunFailedError: if it raised, or gave no response within `timeout` seconds (the thread may go on then).
    """
    future = start_in_thread(function, what)
    try:
        async with asyncio.timeout(timeout) as limit:
            return await future
    except DistillkitError:
        raise
    except Exception as error:
        if limit.expired():
            raise RunFailedError(f"{what}: no response within {timeout:g} s") from error
        raise run_failed(what, error) from error


def start_in_thread(function: Callable[[], T], name: str) -> "asyncio.Future[T]":
    """Start `function`; the future belongs to the running loop. Cancelling it does not stop the thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # it is a T where there is no error

    def work() -> None:
        result: T | None = None
        caught: BaseException | None = None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            caught = RuntimeError(f"{error!r}") if isinstance(error, StopIteration) else error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, caught)

    threading.Thread(target=work, name=f"fireworks: {name}", daemon=True).start()
    return future


def call_within(timeout: float, function: Callable[[], T]) -> T:
    """The result of `function`, from code that is not asynchronous. Raises TimeoutError."""
    outcome: list[T | BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=work, name="fireworks: check", daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no response within {timeout:g} s")
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result
