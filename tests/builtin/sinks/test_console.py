import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.live import Live

from distillkit.events import (
    EvalResult,
    Evaluated,
    Event,
    Measure,
    Notice,
    PhaseProgress,
    PhaseStarted,
    RowValue,
    RunFinished,
    RunStarted,
    StepFinished,
)
from distillkit.testing import TEST_PLAN, check_plugin, make_context, make_rollout, make_row, make_scored, make_teacher
from distillkit_builtin.sinks.console import ConsoleSink, Output
from distillkit_builtin.sinks.evaluation_tables import evaluation_tables
from distillkit_builtin.sinks.heartbeat import Heartbeat
from distillkit_builtin.sinks.progress_display import DOES, ProgressDisplay, duration
from distillkit_builtin.sinks.step_line import step_line

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
        "completions/mean_length": 40.2,
        "completions/truncated_fraction": 0.125,
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
    return Evaluated("before", 0, {"reverse_kl": result}, (example,), measures={"reverse_kl": Measure("reverse KL")})


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


def test_the_heart_beats_only_where_nothing_was_written_for_a_while() -> None:
    now, beats = [0.0], [0.0]
    heart = Heartbeat(lambda: beats.append(now[0]), 30.0, clock=lambda: now[0])
    for now[0] in range(0, 200, 10):
        if now[0] == 50:
            heart.written()
        heart.beat_if_due()
    assert beats == [0.0, 30, 80, 110, 140, 170]


def test_a_heart_that_is_stopped_is_still() -> None:
    beaten = threading.Event()
    heart = Heartbeat(beaten.set, 0.01)
    heart.start()
    assert beaten.wait(20)
    heart.stop()
    beaten.clear()
    assert not beaten.wait(0.15)


def test_a_heart_goes_on_beating_where_a_line_could_not_be_written() -> None:
    beats: list[int] = []
    again = threading.Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 1:
            raise OSError(28, "No space left on device")
        again.set()

    heart = Heartbeat(beat, 0.01)
    heart.start()
    assert again.wait(20)
    heart.stop()


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


def table_of(event: Evaluated, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(evaluation_tables(event, TEACHERS, width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def results(level: float, *routes: str, failed: float = 0.0) -> dict[str, EvalResult]:
    values = {"kl": level, "rate": level / 2, "teacher_rate": 1.0}
    by_row = {"kl": {"1": RowValue(level)}, "rate": {"1": RowValue(level / 2)}}
    return {"e": EvalResult({**values, "failed": failed, "internal": 7.0}, dict.fromkeys(routes, values), by_row)}


MEASURES = {
    "kl": Measure("reverse KL", "lower"),
    "rate": Measure("right answers", "higher", "share"),
    "teacher_rate": Measure("the teacher itself", unit="share"),
    "failed": Measure("without a score", unit="count"),
}


def test_an_evaluation_shows_before_and_now_by_names_for_people() -> None:
    before, now = results(0.5, "short", "[list]"), results(0.25, "short", "[list]", failed=2.0)
    header, _, *rows = table_of(Evaluated("during", 5, now, before=before, measures=MEASURES))
    assert header.split() == ["short", "[list]", "all"]
    assert [re.split(r"  +", row) for row in rows] == [
        ["reverse KL", *["0.500 -> 0.250"] * 3],
        ["right answers", *["25% -> 12%"] * 3],
        ["the teacher itself", *["100%"] * 3],
        ["without a score", "0 -> 2"],
    ]
    first = table_of(Evaluated("before", 0, before, measures=MEASURES))
    assert [line.split()[-1] for line in first[2:]] == ["0.500", "25%", "100%"]


def test_where_there_is_one_route_it_is_all_rows() -> None:
    header, _, *rows = table_of(Evaluated("before", 0, results(0.5, "short", failed=1.0), measures=MEASURES))
    assert header.split() == ["short"]
    assert rows[-1].split()[-1] == "1"


def test_many_routes_stand_in_tables_that_fit() -> None:
    names = [f"route-{i}" for i in range(9)]
    event = Evaluated("during", 5, results(0.25, *names), before=results(0.5, *names), measures=MEASURES)
    lines = table_of(event)
    assert all(len(line) <= 80 for line in lines)
    assert [word for line in lines for word in line.split() if word in (*names, "all")] == [*names, "all"]


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


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (0, 0.2, 61, 90_000)] == [
        "0:00:00",
        "0:00:01",
        "0:01:01",
        "1 day, 1:00:00",
    ]


def test_it_keeps_its_contract(capsys: pytest.CaptureFixture[str]) -> None:
    check_plugin(ConsoleSink())


def test_columns_stand_whole_as_many_beside_each_other_as_fit() -> None:
    labels = ("programming-in-python-and-rust", "mathematics", "multilingual-customer-service")
    results = {"reverse_kl": EvalResult({"kl": 0.5}, {label: {"kl": 0.5} for label in labels})}
    event = Evaluated("before", 0, results, measures={"kl": Measure("reverse KL, nats a completion")})
    for width, tables in ((80, 2), (140, 1), (30, 4)):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(evaluation_tables(event, [], width))
        text = console.export_text()
        assert text.count("reverse KL, nats a completion") == tables or width == 30
        assert width == 30 or all(label in text for label in labels)
        assert all(len(line) <= width for line in text.splitlines())


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
