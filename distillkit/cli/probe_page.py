"""`distillkit check --probe`: what a probe measured, as two tables, and what it means, in words."""

import asyncio
import time
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from distillkit.cli.reporting import Terminal
from distillkit.cli.working import Working
from distillkit.errors import InputError
from distillkit.files.os_errors import explain_os_errors
from distillkit.files.redaction import redact
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.figures import AGAIN, ALONE, REPLICA, REVERSED, Disagreement, Gap, ProbeFigures
from distillkit.probe.report import ProbeReport
from distillkit.probe.without_run import probed
from distillkit.significant import significant

STYLES = {"ok": "green", "warn": "yellow", "refuse": "red"}
NAME = 14
"""Characters of a teacher's name, so that a row fits on 80 columns."""


def probe_and_report(prepared: PreparedRun, console: Terminal, *, quiet: bool = False) -> None:
    """Probe, and print what was found; `quiet`: only what is wrong. Raises InputError if the run is refused."""
    started = time.perf_counter()
    with Working("loading, then sampling and scoring a few rows ...", quiet=quiet), explain_os_errors():
        report = asyncio.run(probed(prepared, lambda notice: console.say(notice.shown)))
    if not quiet:
        seconds = time.perf_counter() - started
        console.print(f"probe: {report.did}; {seconds:.1f} s, loading counted in", soft_wrap=False)
        show_figures(report.figures, console)
    show_verdicts(report, console, quiet=quiet)
    if report.refused:
        raise InputError("the probe refuses this run, for what stands above")


def show_figures(figures: ProbeFigures, console: Console) -> None:
    """Print the gap of each teacher, whether it says the same again, and how the sampling test went."""
    gaps = _table("teacher", "ended", "first 4", "between", "end", "all")
    again = _table("teacher", "again", "reversed", "alone", "replicas")
    for teacher in figures.teachers:
        name, ended = _short(teacher.teacher), f"{teacher.ended}/{teacher.completions}"
        gaps.add_row(name, ended, *map(_gap, (teacher.first, teacher.between, teacher.end, teacher.gap)))
        replicas = [apart for how, apart in teacher.asked_again.items() if how.startswith(f"{REPLICA} ")]
        asked = [teacher.asked_again.get(how) for how in (AGAIN, REVERSED, ALONE)]
        again.add_row(name, *map(_apart, (*asked, _farthest(replicas))))
    console.print("gap to the student, nats a token: mean/mean |gap|")
    console.print(gaps)
    console.print("the same tokens scored once more, nats a token apart: mean/largest")
    console.print(again)
    test = figures.sampling
    if not isinstance(test, str):
        console.print(
            f"sampling: {test.repeated:.1%} of {test.samples} next tokens repeat one before, {test.expected:.1%} would "
            f"by their logprobs (z = {test.z:.1f})",
            soft_wrap=False,
        )
    if figures.weights is not None:
        console.print(f"weights: {_weights(figures.weights)}", soft_wrap=False)
    if figures.run_samples_otherwise:
        console.print(
            "sampling: that was at temperature 1 from the whole distribution; the run itself samples otherwise, as "
            "`sampling` says",
            soft_wrap=False,
        )


def show_verdicts(report: ProbeReport, console: Console, *, quiet: bool = False) -> None:
    """Print each verdict; `quiet`: not the one that says that all is well."""
    for verdict in report.verdicts:
        if verdict.level != "ok" or not quiet:
            line = Text.assemble((f"{verdict.level}: ", STYLES[verdict.level]), redact(verdict.message))
            console.print(line, soft_wrap=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _short(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 3]}..."


def _weights(apart: Disagreement | str) -> str:
    if isinstance(apart, str):
        return f"whether the sampler serves the student's was not measured: {redact(apart)}"
    return f"the sampler's logprobs are {_apart(apart)} from the student's own, nats a token apart: mean/largest"


def _gap(gap: Gap) -> str:
    return f"{_number(gap.mean)}/{_number(gap.mean_abs)}" if gap.tokens else "-"


def _apart(apart: Disagreement | None) -> str:
    return f"{_number(apart.mean)}/{_number(apart.largest)}" if apart is not None and apart.tokens else "-"


def _number(value: float) -> str:
    """Three significant figures, on few characters."""
    if value == 0:
        return "0"
    return significant(value) if abs(value) >= 0.001 else "<.001"


def _farthest(apart: Iterable[Disagreement]) -> Disagreement | None:
    return max(apart, key=lambda each: each.mean, default=None)
