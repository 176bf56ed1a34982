"""Which sections a report has, and the file that it becomes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.files.atomic import replacing
from distillkit.files.os_errors import advice
from distillkit.publishing.machine_paths import MachinePaths
from distillkit.report.inspector.inspector_section import ROOM, inspector_section
from distillkit.report.inspector.samples_reader import SamplesReader
from distillkit.report.page import bytes_left, page_html
from distillkit.report.read_run import read_run
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection
from distillkit.report.sections.curves import curves_section
from distillkit.report.sections.facts import facts_section
from distillkit.report.sections.lost import lost_section
from distillkit.report.sections.probe_section import probe_section
from distillkit.report.sections.results import results_section
from distillkit.report.sections.settings_section import settings_section
from distillkit.report.sections.verdict_section import verdict_section
from distillkit.report.sections.warnings_section import warnings_section
from distillkit.report.without_paths import paths_of, without_paths
from distillkit.run_directory.directory import REPORT

Maker = Callable[[tuple[RunRecord, ...]], ReportSection | None]
UNCOUNTED = 200_000
"""Bytes left for the inspector's own scripts, styles and tables."""


def write_report(*runs: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of one run, or of several side by side: one HTML file that needs nothing else.

    A run that goes on, was interrupted, failed, or whose files are damaged has one too, which says so.

    Args:
        runs: the directories of runs.
        out: where to write it; None: `report.html` in the run's directory, or here for several runs.

    Returns:
        The file.

    Raises:
        InputError: if a directory holds no run, or the file cannot be written.
    """
    if not runs:
        raise InputError("name the directory of a run, such as runs/my-run, or several")
    folders = [Path(run) for run in dict.fromkeys(map(str, runs))]
    file = Path(out) if out is not None else folders[0] / REPORT if len(folders) == 1 else Path(REPORT)
    html = report_html([read_run(folder) for folder in folders])
    try:
        with replacing(file) as aside:
            aside.write_text(html, encoding="utf-8")
    except (OSError, ValueError) as error:
        why = f"{error.strerror}; {advice(error)}" if isinstance(error, OSError) else str(error)
        raise InputError(f"{file} cannot be written: {why}") from error
    return file


def report_html(
    runs: Sequence[RunRecord],
    first: Sequence[ReportSection] = (),
    *,
    connects: bool = False,
    reader: SamplesReader | None = None,
) -> str:
    """The page of these runs.

    Args:
        runs: in the order in which they are shown.
        first: sections above the report's own.
        connects: as `page_html` has it.
        reader: one that has read the runs' samples before, and reads on.
    """
    return page_html(*_titles(runs), [*first, *report_sections(runs, reader)], connects=connects)


def report_sections(runs: Sequence[RunRecord], reader: SamplesReader | None = None) -> list[ReportSection]:
    """All sections that have something to say of these runs, in the order in which they are read."""
    shown = tuple(runs)
    several = len(shown) > 1  # then what differs comes before what came of it
    paths = paths_of(shown)
    first = _made(shown, paths, verdict_section, *[settings_section] * several, results_section, curves_section)
    last = _made(
        shown, paths, lost_section, warnings_section, probe_section, *[settings_section] * (not several), facts_section
    )
    room = min(ROOM, bytes_left(*_titles(shown), [*first, *last]) - UNCOUNTED)
    return [*first, inspector_section(shown, room, reader), *last]


def _made(
    runs: tuple[RunRecord, ...], paths: MachinePaths, *makers: Callable[[tuple[RunRecord, ...]], ReportSection | None]
) -> list[ReportSection]:
    return [without_paths(section, paths) for make in makers if (section := make(runs)) is not None]


def _titles(runs: Sequence[RunRecord]) -> tuple[str, str]:
    """How the page is called, and a line below: student, teachers, when."""
    if len(runs) > 1:
        return f"{len(runs)} runs: {', '.join(run.name for run in runs)}", "side by side"
    (run,) = runs
    return run.name, " · ".join(_about(run))


def _about(run: RunRecord) -> Iterator[str]:
    student, teachers, loss = (run.config.get(key) for key in ("student", "teachers", "loss"))
    if isinstance(student, dict) and student.get("model"):
        yield f"student {_model(student)}"
    if isinstance(teachers, list):
        names = dict.fromkeys(_model(teacher) for teacher in teachers if isinstance(teacher, dict))
        yield f"{'teacher' if len(names) == 1 else 'teachers'} {', '.join(names)}"
    if isinstance(loss, dict) and loss.get("name"):
        yield f"loss {loss['name']}"
    origin = run.summary.get("provenance")
    if isinstance(origin, dict) and origin.get("started"):
        yield f"began {str(origin['started'])[:16].replace('T', ' ')}"


def _model(section: Mapping[str, JsonValue]) -> str:
    """A model without the folders of the machine that it lies on."""
    model = str(section.get("model"))
    return model.replace("\\", "/").rpartition("/")[2] if Path(model).is_absolute() else model
