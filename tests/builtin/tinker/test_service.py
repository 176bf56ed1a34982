"""The run's connection to a server: how its session ends."""

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit.errors import AlignmentError, RunFailedError
from distillkit_builtin.tinker.service import TinkerService


@pytest.mark.parametrize(
    ("ended_by", "status"),
    [
        (None, "success"),
        (KeyboardInterrupt(), "interrupted"),
        (asyncio.CancelledError("stopped after step 3, as asked"), "interrupted"),
        (RunFailedError("too many rows failed"), "errored"),
        (AlignmentError("no logprobs came back"), "errored"),
    ],
)
async def test_a_session_ends_as_its_run_did(ended_by: BaseException | None, status: str) -> None:
    said: list[str] = []

    def close(status: str) -> "Future[None]":
        said.append(status)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    client: Any = SimpleNamespace(close=close)
    service = TinkerService("http://tinker.test", "TINKER_API_KEY", ended_by=lambda: ended_by, _client=client)
    await service.close()
    await service.close()
    assert said == [status]
