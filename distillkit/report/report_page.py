"""Which sections a report has, and the file that it becomes."""

from collections.abc import Sequence
from pathlib import Path

from distillkit.errors import InputError
from distillkit.files.atomic import replacing
from distillkit.files.os_errors import advice
from distillkit.report.page import page_html
from distillkit.report.read_run import read_run
from distillkit.report.run_record import RunRecord
from distillkit.report.section import Section
from distillkit.report.sections.verdict_section import verdict_section

REPORT = "report.html"
"""The report of one run, in its directory; of several, where the command is called."""


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


def report_html(runs: Sequence[RunRecord], *, connects: bool = False) -> str:
    """The page of these runs; `connects`: as `page_html` has it."""
    title = ", ".join(run.name for run in runs)
    return page_html(title, "", report_sections(runs), connects=connects)


def report_sections(runs: Sequence[RunRecord]) -> list[Section]:
    """All sections that have something to say of these runs, in the order in which they are read."""
    return [verdict_section(tuple(runs))]
