import asyncio
import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from conftest import question

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


HANGING = """
import asyncio
from distillkit.testing import FakeScorer


class Hanging(FakeScorer):
    '''Scores the first step, and then waits for ever.'''
    name = "hanging"

    async def score(self, requests):
        if requests[0].rollout.policy_version == 1:
            print("waiting", flush=True)
            await asyncio.sleep(600)
        async for outcome in super().score(requests):
            yield outcome
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_gives_up_the_step_in_hand_and_keeps_those_before(
    tmp_path: Path, jsonl: Callable[..., str], sent: signal.Signals
) -> None:
    script = tmp_path / "hanging.py"
    script.write_text(HANGING, encoding="utf-8")
    config = {
        "name": "hangs",
        "plugins": [str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py"), str(script)],
        "data": {"path": jsonl([question(f"row {i}") for i in range(4)])},
        "student": "fake",
        "teachers": [{"model": "t", "scorer": "hanging"}],
        "sampling": {"max_completion_tokens": 8},
        "train": {"prompt_groups_per_step": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "distillkit", "run", "config.yaml"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        killer = threading.Timer(120, process.kill)  # whatever comes, no test waits for ever
        killer.start()
        assert process.stdout is not None
        for words in ("waiting", "stopping after the step in hand"):
            assert any(words in line for line in process.stdout)
            process.send_signal(sent)
        output = process.stdout.read().splitlines()
        killer.cancel()
    assert process.returncode == 130, output
    go_on = ["go on after step 1 with:", "  distillkit run config.yaml --resume"]
    assert output[-4:] == ["interrupted", "log: runs/hangs/run.log", *go_on]
    assert any(line.endswith("step 1, the last good one, is saved: a resume goes on after it") for line in output)
    assert [path.name for path in (tmp_path / "runs/hangs/checkpoints").iterdir()] == ["step-1"]
