"""Blocking calls of the SDK, from a coroutine: their results, their errors, their limit, and a cancellation."""

import time

import pytest
from helpers.cancellation import called_soon, count_cancellations

from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.fireworks import blocking_calls
from distillkit_builtin.fireworks.blocking_calls import call_in_thread


async def test_the_result_is_that_of_the_call() -> None:
    assert await call_in_thread("asking", None, lambda: 7) == 7


async def test_what_it_raises_ends_the_run_and_says_what_was_done() -> None:
    def fail() -> None:
        raise ValueError("no such trainer")

    def refuse() -> None:
        raise InputError("deployment.id: is taken")

    with pytest.raises(RunFailedError, match=r"^asking: .*no such trainer") as caught:
        await call_in_thread("asking", 5.0, fail)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(InputError, match="is taken"):
        await call_in_thread("asking", 5.0, refuse)


async def test_one_that_takes_longer_than_its_limit_is_not_waited_for() -> None:
    started = time.monotonic()
    with pytest.raises(RunFailedError, match=r"^asking: no response within 0\.05 s$"):
        await call_in_thread("asking", 0.05, lambda: time.sleep(5))
    assert time.monotonic() - started < 3


async def test_one_that_is_cancelled_as_it_ends_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's `asyncio.wait_for` gives the result then."""
    monkeypatch.setattr(blocking_calls, "start_in_thread", called_soon)
    assert await count_cancellations(lambda: call_in_thread("asking", 5.0, lambda: 7)) > 1
