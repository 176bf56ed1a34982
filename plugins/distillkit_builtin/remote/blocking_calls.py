"""Blocking calls of a service's SDK, from a coroutine: each in a thread of its own, with a time-out, never in the way.

Not `asyncio.to_thread`: a call may block for days, and the event loop waits for its own threads when it ends. These
threads are daemons, so nothing that hangs keeps the process alive.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


def call_within(timeout: float, function: Callable[[], T], name: str) -> T:
    """The result of `function`, from code that is not asynchronous. Raises TimeoutError."""
    outcome: list[T | BaseException] = []

    def work() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    thread.join(timeout)
    if not outcome:
        raise TimeoutError(f"no response within {timeout:g} s")
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result
