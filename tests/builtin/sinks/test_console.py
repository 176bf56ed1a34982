import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distillkit.events import EvalResult, Evaluated, Event, Notice, PhaseProgress, RunFinished, RunStarted, StepFinished
from distillkit.testing import TEST_PLAN, check_plugin, make_context, make_rollout, make_row, make_scored, make_teacher
from distillkit_builtin.sinks.console import ConsoleSink
from distillkit_builtin.sinks.progress_display import ProgressDisplay, duration

TEACHERS = (make_teacher("short"), make_teacher("[list]"))
STARTED = RunStarted("run", Path("runs/run"), replace(TEST_PLAN, steps=4), TEACHERS, 1, {})
Play = Callable[..., str]


def step(number: int, *, scored: int = 3, failed: int = 0, **metrics: float) -> StepFinished:
    """Only the first teacher scores."""
    mine = f"teacher_route/{TEACHERS[0].slug}"
    values = {
        "train/reverse_kl": 0.4321,
        "train/active_tokens": 2468.0,
        "time/step": 2.0,
        f"{mine}/scored": float(scored),
        f"{mine}/failed": float(failed),
        f"{mine}/reverse_kl": 0.25,
    }
    return StepFinished(number, {**values, **metrics})


def evaluated() -> Evaluated:
    text = "an [answer]"
    example = make_scored(
        make_rollout(list(text.encode())), [-1.0] * len(text), teacher="short", row=make_row("a [question]")
    )
    result = EvalResult({"reverse_kl": 0.5}, {"short": {"reverse_kl": 0.125}})
    return Evaluated("before", 0, {"reverse_kl": result}, (example,))


@pytest.fixture(params=["terminal", "file", "dumb terminal"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sink(kind: str) -> Iterator[ConsoleSink]:
    """A console that writes into memory."""
    sink = ConsoleSink()
    sink._console = Console(
        file=io.StringIO(),
        force_terminal=kind != "file",
        color_system=None,
        width=80,
        _environ={"TERM": "dumb" if kind == "dumb terminal" else "xterm"},
    )
    yield sink
    if sink._live is not None:
        sink._live.stop()


@pytest.fixture
def play(sink: ConsoleSink) -> Play:
    """Everything that is written while the run tells these events."""

    def emit(*events: Event) -> str:
        for event in events:
            sink.emit(event)
            if sink._live is not None:
                sink._live.refresh()
        file = sink._console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()

    return emit


def rendered(display: ProgressDisplay, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(display)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_foot_of_a_terminal_says_how_far_and_what_each_teacher_did() -> None:
    display = ProgressDisplay(4, TEACHERS, clock=lambda: 100.0, started=10.0)
    display = display.after_step(step(1)).after_step(step(2, failed=1, **{"time/step": 4.0}))
    display = display.with_phase(PhaseProgress("sample", 16, 16)).with_phase(PhaseProgress("score", 3, 16))
    first, phases, title, short, other = rendered(display)
    start, *_, end = first.split("━")
    assert start == "step 2/4  "
    assert end.lstrip("╸ ") == "reverse KL 0.4321  617 tok/s  0:01:30  ETA 0:00:06"
    assert phases.strip() == "sample 16/16  score 3/16"
    assert title.split("  ")[0] == "teacher"
    assert title.split()[1:] == ["reverse", "KL", "scored", "failed"]
    assert short.split() == ["short", "0.2500", "6", "1"]
    assert other.split() == ["[list]", "-", "0", "0"]


def test_the_eta_counts_down_between_steps() -> None:
    now = [0.0]
    display = ProgressDisplay(3, TEACHERS, clock=lambda: now[0], started=0.0)
    assert display.seconds_left is None
    display = display.after_step(step(1, **{"time/step": 60.0}))
    seen = []
    for now[0] in (0.0, 30.0, 119.0, 500.0):
        seen.append(display.seconds_left)
    assert seen == [120.0, 90.0, 1.0, 0.0]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_it_fits_the_terminal(width: int) -> None:
    display = ProgressDisplay(1000, TEACHERS, clock=lambda: 9000.0, started=0.0).after_step(step(999))
    assert all(len(line.rstrip()) <= width for line in rendered(display, width))
    assert len(rendered(display, width)) == 5
    assert ("━━" in rendered(display, width)[0]) == (width > 60)


@pytest.mark.parametrize("kind", ["terminal"], indirect=True)
def test_on_a_terminal_steps_do_not_scroll_by(play: Play) -> None:
    seen = play(STARTED, PhaseProgress("sample", 3, 16), step(1))
    assert "sample 3/16" in seen
    assert "step 0/4" in seen
    assert "step 1/4" in seen
    assert "| short:" not in seen
    seen = play(evaluated(), Notice("[mind] this", "warning"), RunFinished({}))
    for part in ("held-out prompts before training", "a [question]", "an [answer]", "warning: [mind] this"):
        assert part in seen
    foot = seen[seen.rindex("step 1/4") :]
    assert "sample" not in foot
    assert foot.splitlines()[-2].split() == ["[list]", "-", "0", "0"]


@pytest.mark.parametrize("kind", ["file", "dumb terminal"], indirect=True)
def test_elsewhere_a_step_is_a_line(play: Play) -> None:
    seen = play(STARTED, PhaseProgress("sample", 3, 16), step(1), evaluated(), RunFinished({}))
    line = next(line for line in seen.splitlines() if line.startswith("step "))
    assert line == (
        "step 1/4 reverse KL 0.4321 | short: 0.250 (3) | [list]: - (0) | length 0, 1234 tok/s | 2.0 s, ETA 0:00:06"
    )
    assert "sample 3/16" not in seen
    assert "\x1b[?25l" not in seen  # hides the cursor
    assert "held-out prompts before training" in seen


async def test_silence_is_complete(sink: ConsoleSink, play: Play) -> None:
    sink.silence()
    await sink.open(make_context())
    assert play(STARTED, PhaseProgress("sample", 3, 16), step(1), evaluated(), Notice("x"), RunFinished({})) == ""


@pytest.mark.parametrize("kind", ["terminal"], indirect=True)
async def test_the_terminal_is_given_back(sink: ConsoleSink, play: Play) -> None:
    await sink.open(make_context())
    play(STARTED)
    await sink.close()
    assert play().rstrip("\n").endswith("\x1b[?25h")  # shows the cursor again
    await sink.close()


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0, 0.2, 61, 90_000)] == [
        "0:00:00",
        "0:00:01",
        "0:01:01",
        "1 day, 1:00:00",
    ]


def test_it_keeps_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    check_plugin(ConsoleSink())
