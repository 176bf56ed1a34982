"""What the probe at the run's start found, where one was made."""

from collections.abc import Iterator, Mapping
from typing import Any

from distillkit.events import Measure
from distillkit.report.html_templates import rendered
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection

LEVELS = {"ok": "ok", "warn": "warning", "refuse": "refused"}


def probe_section(runs: tuple[RunRecord, ...]) -> ReportSection | None:
    """Verdicts, and the gaps by teacher; None where no run was probed."""
    probed = [run for run in runs if run.probe]
    if not probed:
        return None
    found = [(run, list(_verdicts(run.probe)), list(_teachers(run.probe))) for run in probed]
    return ReportSection("probe", "Probe at the start", rendered("probe.html", found=found, several=len(runs) > 1))


def _verdicts(probe: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Level, kind and message of each."""
    verdicts = probe.get("verdicts")
    for each in verdicts if isinstance(verdicts, list) else ():
        if isinstance(each, Mapping):
            level = str(each.get("level", ""))
            yield LEVELS.get(level, level), str(each.get("what", "")), str(each.get("message", ""))


def _teachers(probe: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Teacher, completions, how many ended, and the mean size of the gap: over all, first, between, end."""
    figures = probe.get("figures")
    teachers = figures.get("teachers") if isinstance(figures, Mapping) else None
    for each in teachers if isinstance(teachers, list) else ():
        if isinstance(each, Mapping):
            gaps = [_size(each.get(part)) for part in ("gap", "first", "between", "end")]
            yield str(each.get("teacher", "")), str(each.get("completions", "")), str(each.get("ended", "")), gaps


def _size(gap: object) -> str:
    value = gap.get("mean_abs") if isinstance(gap, Mapping) else None
    return Measure("").text(value) if isinstance(value, int | float) else "-"
