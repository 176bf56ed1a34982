"""The line at the foot of the terminal while a command works: there on a terminal, gone once it is taken away."""

from io import StringIO

import pytest

from distillkit.cli import working
from distillkit.cli.reporting import Terminal
from distillkit.cli.working import Working
from distillkit.events import PhaseProgress


class Screen(StringIO):
    """What a terminal gets, or a file."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Screen:
    """What stands on standard error."""
    made = Screen(terminal=request.param)
    monkeypatch.setenv("TERM", "xterm-256color")
    console = Terminal(stderr=True)
    console.file = made
    monkeypatch.setattr(working, "ERR", console)
    return made


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_it_says_what_is_done_and_may_be_taken_away_before_the_block_ends(screen: Screen) -> None:
    with Working("checking ...", quiet=False) as line:
        line.progress(PhaseProgress("score", 3, 8))
        line.stop()
        said = screen.getvalue()
        assert "scoring 3/8" in said
        assert said.endswith(("\x1b[2K", "\x1b[?25h"))  # the line is erased, the cursor is back
    assert screen.getvalue() == said


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_in_a_file_there_is_nothing(screen: Screen) -> None:
    with Working("checking ...", quiet=False) as line:
        line.progress(PhaseProgress("score", 3, 8))
    assert not screen.getvalue().strip()


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_nor_where_it_is_to_be_quiet(screen: Screen) -> None:
    with Working("checking ...", quiet=True) as line:
        line.progress(PhaseProgress("score", 3, 8))
    assert not screen.getvalue()
