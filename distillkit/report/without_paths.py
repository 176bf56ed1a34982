"""A report is sent to others, so no path of the machine that the run was made on stands in it: their last parts do.

What a completion says is the run's data, and stands as it is.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from distillkit.publishing.machine_paths import MachinePaths, folders_of_run
from distillkit.report.run_record import RunRecord
from distillkit.report.section import ReportSection


def without_paths(section: ReportSection, paths: MachinePaths) -> ReportSection:
    """The section with the last part of each path in its text."""
    return replace(section, html=Markup(paths.scrubbed(str(section.html))))  # noqa: S704 - a part of what was escaped


def paths_of(runs: Sequence[RunRecord]) -> MachinePaths:
    """The folders that texts of these runs may name; also those of packages, which stand in tracebacks."""
    found = [Path(sys.prefix), Path(sys.base_prefix)]
    for run in runs:
        found += _folders(run)
    return MachinePaths.of([*found, *(Path(*path.parts[:3]) for path in found if path.is_absolute())])


def _folders(run: RunRecord) -> Iterator[Path]:
    """A run that was copied from another machine names that one's: with each, the two topmost (`/home/ada`)."""
    try:
        yield from folders_of_run(run.run_dir, run.config)
    except (OSError, ValueError):  # its config is missing or damaged, which the page says
        yield run.run_dir
