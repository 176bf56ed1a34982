import asyncio
import logging
from typing import Any, cast

import pytest

from distillkit.cli.signals import Stopping
from distillkit.events import Notice
from distillkit.loop.sink_dispatcher import SinkDispatcher
from distillkit.testing import ListSink


class Waiting:
    """An engine in the middle of something, or of nothing."""

    def __init__(self, waits_for: str | None) -> None:
        self.waits_for = waits_for
        self.dispatcher = SinkDispatcher()

    def request_stop(self) -> str | None:
        return self.waits_for


@pytest.mark.parametrize("waits_for", ["the step in hand, with a checkpoint", "the final weights", None])
async def test_the_first_signal_says_what_it_waits_for_also_in_the_log_and_the_second_ends_it(
    caplog: pytest.LogCaptureFixture, waits_for: str | None
) -> None:
    engine, sink = Waiting(waits_for), ListSink()
    engine.dispatcher.attach([sink])
    stopping = Stopping(cast(Any, engine), asyncio.create_task(asyncio.sleep(60)))
    assert stopping.task is not None
    with caplog.at_level(logging.INFO, "distillkit"):
        stopping.stop()
    expected = [f"stopping after {waits_for}; once more (Ctrl-C) stops at once"] if waits_for else []
    assert [event.message for event in sink.events if isinstance(event, Notice)] == expected
    assert [record.message for record in caplog.records] == expected
    assert bool(stopping.task.cancelling()) is (waits_for is None)
    stopping.stop()
    assert stopping.task.cancelling()
