"""The foot of a terminal: how far the run is, what it does, and when it ends."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from builtin.sinks.console_events import TEACHERS, step
from distillkit.events import PhaseProgress, PhaseStarted
from distillkit_builtin.sinks.progress_display import DOES, ProgressDisplay, duration


def rendered(display: ProgressDisplay, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(display)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_foot_of_a_terminal_says_how_far_and_what_each_teacher_did() -> None:
    display = ProgressDisplay(4, TEACHERS, clock=lambda: 100.0, started=10.0)
    display = display.after_step(step(1)).after_step(step(2, failed=1, **{"time/step": 4.0}))
    display = replace(display.with_phase(PhaseStarted("sample")), phase_started=88.0)
    display = display.with_progress(PhaseProgress("sample", 16, 16)).with_progress(PhaseProgress("score", 3, 16))
    phases, first, title, short, other = rendered(display)
    start, *_, end = first.split("━")
    assert start == "step 2/4  "
    assert end.lstrip("╸ ") == "reverse KL 0.432  617 tok/s  0:01:30  ETA 0:00:06"
    assert phases.strip() == "step 3: sampling and scoring, sampled 16/16, scored 3/16  0:00:12"
    assert title.split("  ")[0] == "teacher"
    assert title.split()[1:] == ["reverse", "KL", "scored", "failed"]
    assert short.split() == ["short", "0.250", "6", "1"]
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
    assert ("━━" in rendered(display, width)[1]) == (width > 60)


def test_every_phase_has_words_and_counts_from_its_beginning() -> None:
    now = [5.0]
    display = ProgressDisplay(0, (), clock=lambda: now[0])
    assert display.doing == ""
    for phase, words in DOES.items():
        display = display.with_phase(PhaseStarted(phase)).with_progress(PhaseProgress("score", 1, 2))  # type: ignore[arg-type]
        assert words in display.doing
        assert display.doing.endswith(", scored 1/2")
    now[0] = 65.0
    (line,) = rendered(display.with_phase(PhaseStarted("load", "teacher Qwen3-1.7B")))
    assert line == "loading teacher Qwen3-1.7B  0:00:00"
    assert display.seconds_doing == 60.0
    assert display.without_phase().doing == ""


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0, 0.2, 61, 90_000)] == [
        "0:00:00",
        "0:00:01",
        "0:01:01",
        "1 day, 1:00:00",
    ]
