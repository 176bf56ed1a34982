"""Sink `console`: what it writes while a run tells its events, on a terminal and elsewhere."""

import io
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from rich.live import Live

from builtin.sinks.console_events import STARTED, TEACHERS, evaluated, step
from distillkit.events import EvalResult, Evaluated, Event, Notice, PhaseProgress, PhaseStarted, RunFinished
from distillkit.testing import check_plugin, make_context, make_rollout, make_row, make_scored
from distillkit_builtin.sinks.console import ConsoleSink, Output
from distillkit_builtin.sinks.progress_display import ProgressDisplay
from distillkit_builtin.sinks.step_line import step_line

Play = Callable[..., str]


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
    if sink._heartbeat is not None:
        sink._heartbeat.stop()


@pytest.fixture
async def play(sink: ConsoleSink) -> Play:
    """Everything that is written while the run tells these events; a time of day is `12:34:56`."""
    await sink.open(make_context())

    def emit(*events: Event) -> str:
        for event in events:
            sink.emit(event)
            if sink._live is not None:
                sink._live.refresh()
        file = sink._console.file
        assert isinstance(file, io.StringIO)
        return re.sub(r"(?<!\d)\d\d:\d\d:\d\d ", "12:34:56 ", file.getvalue())

    return emit


@pytest.mark.parametrize("kind", ["terminal"], indirect=True)
def test_on_a_terminal_a_step_is_a_line_that_stays_above_the_foot(play: Play) -> None:
    seen = play(PhaseStarted("load", "student"))
    assert "loading student" in seen
    assert "step 0/4" not in seen
    seen = play(STARTED, PhaseStarted("sample"), PhaseProgress("sample", 3, 16), step(1), step(2))
    assert "sampled 3/16" in seen
    assert "step 0/4" in seen
    for number in (1, 2):
        assert f"12:34:56 step {number}/4  reverse KL 0.432  length 40  ended 88%  2.0 s" in seen
    seen = play(evaluated(), Notice("[mind] this", "warning"), Notice("as set"), RunFinished({}))
    for part in (
        "held-out prompts before training",
        "a [question]",
        "an [answer]",
        "warning: [mind] this",
        "note: as set",
    ):
        assert part in seen
    foot = seen[seen.rindex("step 2/4") :]
    assert "sample" not in foot
    assert foot.splitlines()[-2].split() == ["[list]", "-", "0", "0"]


@pytest.mark.parametrize("kind", ["file", "dumb terminal"], indirect=True)
def test_elsewhere_a_step_is_a_line_with_all_there_is(play: Play) -> None:
    seen = play(STARTED, PhaseStarted("sample"), PhaseProgress("sample", 3, 16), step(1), evaluated(), RunFinished({}))
    assert "12:34:56 loading ..." in seen
    line = next(line for line in seen.splitlines() if "step 1/4" in line)
    assert line == (
        "12:34:56 step 1/4  reverse KL 0.432  length 40  ended 88%  2.0 s  short 0.250 (3)  [list] - (0)  "
        "1,234 tok/s  ETA 0:00:06"
    )
    assert "sampled 3/16" not in seen
    assert "\x1b[?25l" not in seen  # hides the cursor
    assert "held-out prompts before training" in seen


def test_a_step_is_cut_where_the_terminal_ends_with_what_matters_first() -> None:
    display = ProgressDisplay(4, TEACHERS, clock=lambda: 0.0).after_step(step(1))
    lost = {"completions/failed": 3.0, "completions/trained": 5.0, f"teacher_route/{TEACHERS[0].slug}/failed": 2.0}
    metrics = {**step(1).metrics, **lost}
    whole = step_line(metrics, display)
    assert whole.startswith("step 1/4  reverse KL 0.432  3 of 8 FAILED (short 2)  length 40")
    for width in range(10, 140):
        line = step_line(metrics, display, width)
        assert len(line) <= max(width, len("step 1/4"))
        assert whole.startswith(line)
    assert step_line({}, display, 5) == "step 1/4"
    alone = replace(display, teachers=TEACHERS[:1])
    assert "3 of 8 FAILED  length 40" in step_line(metrics, alone)
    assert "short" not in step_line(metrics, alone)  # a teacher that is alone has the step's own gap


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_a_log_says_now_and_then_what_the_run_waits_for(sink: ConsoleSink, play: Play) -> None:
    play(PhaseStarted("load", "teacher short"))
    sink._beat()
    assert "12:34:56 loading teacher short (for 0:00:0" in play()
    play(STARTED, PhaseStarted("evaluate", "reverse_kl"), PhaseProgress("sample", 3, 16))
    sink._beat()
    assert "12:34:56 evaluating reverse_kl, sampled 3/16 (for 0:00:0" in play()
    before = play(evaluated())
    sink._beat()
    assert play() == before  # nothing is waited for


@pytest.mark.parametrize("terminal", [False, True])
async def test_who_closes_the_output_does_not_end_the_run(terminal: bool) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    sink = ConsoleSink()
    with open(writes, "w", encoding="utf-8", buffering=1) as file:  # noqa: PTH123
        sink._console = Output(file=file, force_terminal=terminal, _environ={"TERM": "xterm"})
        await sink.open(make_context())
        for event in (STARTED, step(1), evaluated(), Notice("x")):
            sink.emit(event)
        await sink.close()
    assert sink._console.quiet


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_samples_are_cut_at_a_few_lines_and_cannot_move_the_cursor(play: Play) -> None:
    text = "word " * 200 + "\x1b[2J"
    row = make_row("why " * 200)
    example = make_scored(make_rollout(list(text.encode()), row=row), [-1.0] * len(text), teacher="short", row=row)
    result = EvalResult({"x": 1.0})
    seen = play(STARTED, Evaluated("before", 0, {"e": result}, (replace(example, rollout=example.rollout),)))
    assert "\x1b" not in seen
    assert [line for line in seen.splitlines() if "more characters" in line] == [
        "... 656 more characters",
        "  ... 704 more characters",
    ]
    assert sum("word" in line for line in seen.splitlines()) == 4
    assert sum("why" in line for line in seen.splitlines()) == 2
    assert all(len(line) <= 80 for line in seen.splitlines() if "12:34:56" not in line)


async def test_silence_is_complete(sink: ConsoleSink) -> None:
    sink.silence()
    await sink.open(make_context())
    for event in (STARTED, PhaseStarted("sample"), PhaseProgress("sample", 3, 16), step(1), evaluated(), Notice("x")):
        sink.emit(event)
    sink._beat()
    await sink.close()
    assert sink._console.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["terminal"], indirect=True)
async def test_the_terminal_is_given_back(sink: ConsoleSink, play: Play) -> None:
    play(STARTED)
    await sink.close()
    assert play().rstrip("\n").endswith("\x1b[?25h")  # shows the cursor again
    await sink.close()


def test_it_keeps_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    check_plugin(ConsoleSink())


def test_on_a_terminal_a_long_line_goes_on_below_its_beginning() -> None:
    sink = ConsoleSink()
    output = io.StringIO()
    sink._console = Console(file=output, width=40, force_terminal=True, color_system=None)
    sink._live = Live(console=sink._console)
    sink.emit(Notice("one two three four five six seven eight nine ten"))
    first, *rest = [line for line in output.getvalue().splitlines() if line.strip()]
    assert re.match(r"\d\d:\d\d:\d\d note: one two", first)
    assert rest
    assert all(line.startswith(" " * 9) and len(line) <= 40 for line in rest)
