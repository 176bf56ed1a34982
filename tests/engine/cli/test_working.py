"""The line at the foot of the terminal while a command works: it says what is done, until it is taken away."""

import re
import threading

import pytest

from distillkit.cli import working
from distillkit.cli.working import Working
from distillkit.events import PhaseProgress


class Line:
    """Stands for rich's line, and keeps what is done with it."""

    done: list[str]

    def __init__(self, text: str, console: object) -> None:
        self.done = shown
        self.update(text)

    def start(self) -> None:
        self.done.append("start")

    def update(self, text: str) -> None:
        self.done.append(text)

    def stop(self) -> None:
        self.done.append("stop")


shown: list[str] = []


@pytest.fixture(autouse=True)
def _line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown.clear()
    monkeypatch.setattr(working, "Status", Line)


def test_it_says_what_is_done_and_may_be_taken_away_before_the_block_ends() -> None:
    with Working("checking ...", quiet=False) as line:
        line.progress(PhaseProgress("score", 3, 8))
        line.stop()
        assert shown == ["checking ...", "start", "scoring 3/8", "stop"]


def test_an_error_takes_it_away_too() -> None:
    with pytest.raises(ZeroDivisionError), Working(quiet=False):
        raise ZeroDivisionError
    assert shown == ["loading ...", "start", "stop"]


def test_where_it_is_to_be_quiet_there_is_none() -> None:
    with Working(quiet=True) as line:
        line.progress(PhaseProgress("score", 3, 8))
        line.stop()
    assert not shown


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_it_is_said_now_and_then_what_is_done_and_when_quiet_it_is_not(
    monkeypatch: pytest.MonkeyPatch, *, quiet: bool
) -> None:
    said: list[str] = []
    came = threading.Event()

    def hear(text: str) -> None:
        said.append(text)
        if text.startswith("sampling"):
            came.set()

    monkeypatch.setattr(working, "BEAT_S", 0.005)
    monkeypatch.setattr("distillkit.cli.working.ERR.print", hear)
    with Working(quiet=quiet) as line:
        line.say("sampling ...")
        assert came.wait(0.1 if quiet else 30) is not quiet
    count = len(said)
    assert all(re.fullmatch(r"(loading|sampling) \.\.\. \(\d+ s\)", each) for each in said)
    assert bool(count) is not quiet
