import asyncio
import signal
import threading
from collections.abc import Callable

import pytest

from distillkit.loop.blocking import run_blocking


async def answer() -> int:
    await asyncio.sleep(0.01)
    return 42


async def fail() -> int:
    raise ZeroDivisionError("a bug")


async def in_a_notebook(call: Callable[[], int]) -> int:
    """A cell is ordinary code, called while the notebook's event loop runs; a stop is a KeyboardInterrupt in it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return call()


@pytest.mark.parametrize("notebook", [False, True])
def test_results_and_exceptions_come_out(notebook: bool) -> None:
    def run(call: Callable[[], int]) -> int:
        return asyncio.run(in_a_notebook(call)) if notebook else call()

    assert run(lambda: run_blocking(answer())) == 42
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run(lambda: run_blocking(fail()))


@pytest.mark.parametrize(
    ("notebook", "stubborn"),
    [(False, False), (True, False), (True, True)],  # asyncio.run takes the result of stubborn work for an answer
)
def test_an_interrupt_ends_the_work_before_it_comes_out(notebook: bool, stubborn: bool) -> None:
    story: list[str] = []

    async def train() -> int:
        try:
            story.append("training")
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not stubborn:
                raise
        finally:
            await asyncio.sleep(0.05)
            story.append("closed")
        return 0

    def cell() -> int:
        with pytest.raises(KeyboardInterrupt):
            run_blocking(train())
        return 1

    asyncio.run(in_a_notebook(cell)) if notebook else cell()
    assert story == ["training", "closed"]
    assert not [thread for thread in threading.enumerate() if thread.name == "distillkit-run"]
