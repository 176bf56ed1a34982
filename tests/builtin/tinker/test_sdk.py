"""Waiting for what calls of the SDK return, of either generation, and what its errors become."""

import asyncio
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.cancellation import called_soon, count_cancellations

from distillkit.errors import RunFailedError
from distillkit_builtin.tinker import sdk
from distillkit_builtin.tinker.sdk import got, load_sdk, retry_config, sdk_call
from distillkit_builtin.tinker.sdk_errors import LONGEST, explain, lacks_request


def done(value: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    future.set_result(value)
    return future


@pytest.mark.parametrize("wrap", [lambda x: x, done, lambda x: SimpleNamespace(future=lambda: done(x))])
async def test_clients_and_both_kinds_of_futures_are_waited_for(wrap: Any) -> None:
    client = SimpleNamespace(name="client")
    assert await got(wrap(client), 5.0) is client
    assert await sdk_call("making it", 5.0, lambda: wrap(client)) is client


async def test_a_wait_has_an_end_and_cancels_what_it_waits_for() -> None:
    future: Future[Any] = Future()
    with pytest.raises(TimeoutError):
        await got(future, 0.05)
    assert future.cancelled()
    started = time.monotonic()
    with pytest.raises(RunFailedError, match=r"^making it: no response within 0\.1 s$"):
        await sdk_call("making it", 0.1, lambda: time.sleep(5))
    assert time.monotonic() - started < 3


async def test_a_wait_that_is_cancelled_as_it_ends_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's `asyncio.wait_for` gives the result then."""
    monkeypatch.setattr(sdk, "start_in_thread", called_soon)
    assert await count_cancellations(lambda: sdk_call("making it", 5.0, lambda: 7)) > 1
    assert await count_cancellations(lambda: sdk_call("making it", 5.0, lambda: done(7))) > 3


async def test_a_call_that_blocks_does_not_hold_up_the_loop() -> None:
    blocked = asyncio.ensure_future(sdk_call("making it", 5.0, lambda: time.sleep(0.3)))
    started = time.monotonic()
    await asyncio.sleep(0.01)
    assert time.monotonic() - started < 0.2
    await blocked


async def test_an_error_says_what_was_done_and_keeps_its_cause() -> None:
    def fail() -> None:
        raise ValueError("Error retrieving result: Error code: 400 - rank 999 is too large")

    with pytest.raises(RunFailedError, match=r"^making it: Error retrieving result: .*rank 999") as caught:
        await sdk_call("making it", 5.0, fail)
    assert isinstance(caught.value.__cause__, ValueError)


def test_errors_are_one_line_without_keys_and_without_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-0123456789")
    error = RuntimeError(f"key tml-0123456789\nids {list(range(5000))} end")
    assert explain(error) == "key *** ids [...] end"
    assert len(explain(RuntimeError("x" * 5000))) == LONGEST
    assert explain(TimeoutError()) == "no response in time"


def test_a_refusal_of_what_a_server_does_not_know_is_told_from_others() -> None:
    def refused(status: int) -> Exception:
        error = RuntimeError("refused")
        error.status_code = status  # type: ignore[attr-defined]
        return error

    assert [status for status in (400, 401, 404, 409, 422, 500) if lacks_request(refused(status))] == [400, 404, 422]
    assert not lacks_request(TimeoutError())
    assert not lacks_request(None)


def test_telemetry_is_off_unless_the_user_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tinker")
    import os

    monkeypatch.delenv("TINKER_TELEMETRY", raising=False)
    load_sdk()
    assert os.environ["TINKER_TELEMETRY"] == "0"
    monkeypatch.setenv("TINKER_TELEMETRY", "1")
    load_sdk()
    assert os.environ["TINKER_TELEMETRY"] == "1"
    assert retry_config(7.0).progress_timeout == 7.0
