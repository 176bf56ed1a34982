"""Running asynchronous code from code that is not, also where an event loop is running already (a notebook)."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; it gets an event loop of its own, in a thread of its own where this one has a loop.

    An interrupt (Ctrl-C, a notebook's stop button) cancels `work`, waits until it has closed what it opened, and comes
    out as the `KeyboardInterrupt` that it is; a second one does not wait.
    """
    return _in_thread(work) if _loop_is_running() else asyncio.run(work)


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    errors: list[BaseException] = []
    done = threading.Event()  # an interrupted Thread.join takes the thread for ended, until Python 3.13

    def call() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(_finished(task))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=call, name="distillkit-run")
    try:
        thread.start()
        done.wait()
    except BaseException:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the work has just ended
            loop.call_soon_threadsafe(task.cancel)
        done.wait()
        raise
    if errors:
        raise errors[0]
    return task.result()


async def _finished(task: asyncio.Task[T]) -> T:
    return await task
