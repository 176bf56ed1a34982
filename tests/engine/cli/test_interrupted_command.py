"""Ctrl-C while `run` is in the middle of a step: once, and once more."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import read_jsonl

from engine.cli.conftest import FAKE_TEACHER, FAKES

HELD = """
import asyncio
from pathlib import Path
from distillkit.testing import FakeStudent


class Held(FakeStudent):
    '''Is in the middle of a step until a file appears.'''
    name = "held"
    until: str

    async def train(self, batch):
        print("training", flush=True)
        while not Path(self.until).exists():
            await asyncio.sleep(0.01)
        return await super().train(batch)

    async def close(self):
        print("closed the student", flush=True)
"""


class Terminal:
    """A run of a process of its own, in the middle of its first step, and what it prints."""

    def __init__(self, config: str, until: Path) -> None:
        self.until = until
        command = [sys.executable, "-m", "distillkit", "run", config]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.killer = threading.Timer(120, self.process.kill)  # whatever comes, no test waits for ever
        self.killer.start()
        self.read_until("training")

    def read_until(self, words: str) -> str:
        """What is printed up to the line that holds `words`."""
        assert self.process.stdout is not None
        lines: list[str] = []
        for line in self.process.stdout:
            lines.append(line)
            if words in line:
                return "".join(lines)
        raise AssertionError("".join(lines))

    def send(self, sent: signal.Signals) -> None:
        self.process.send_signal(sent)

    def end_the_step(self) -> None:
        self.until.touch()

    def rest(self) -> str:
        """What is printed from here to the end."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        self.process.wait()
        return output

    def close(self) -> None:
        self.killer.cancel()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def terminal(config: Callable[..., str], tmp_path: Path) -> Iterator[Terminal]:
    until, script = tmp_path / "go on", tmp_path / "held.py"
    script.write_text(HELD, encoding="utf-8")
    student = {"name": "held", "until": str(until)}
    held = Terminal(config(student=student, plugins=[FAKES, str(script)], teachers=FAKE_TEACHER), until)
    yield held
    held.close()


STOPPING = "stopping after the step in hand, with a checkpoint; once more (Ctrl-C) stops at once"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_one_interrupt_finishes_the_step_in_hand_saves_and_is_exit_code_130(
    terminal: Terminal, sent: signal.Signals
) -> None:
    terminal.send(sent)
    terminal.read_until(STOPPING)
    terminal.end_the_step()
    output = terminal.rest()
    assert terminal.process.returncode == 130, output
    assert output.splitlines()[-4] == "interrupted"
    assert output.splitlines()[-1].endswith("--resume")
    assert output.count("step 1 is saved: a resume goes on after it") == 1
    assert "closed the student" in output
    assert "Traceback" not in output
    assert [row["step"] for row in read_jsonl(Path("runs/fake/metrics.jsonl"))] == [0, 1]
    assert [path.name for path in Path("runs/fake/checkpoints").iterdir()] == ["step-1"]
    assert json.loads(Path("runs/fake/summary.json").read_text())["status"] == "interrupted"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_closes_everything_at_once(terminal: Terminal, sent: signal.Signals) -> None:
    terminal.send(sent)
    terminal.read_until(STOPPING)
    terminal.send(sent)
    output = terminal.rest()  # the step does not end
    assert terminal.process.returncode == 130, output
    assert output.splitlines()[-2:] == ["interrupted", "log: runs/fake/run.log"]
    assert "closed the student" in output
    assert "Traceback" not in output
