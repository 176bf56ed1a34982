"""The pages that a browser gets: the list of runs, and each run's report, made again when its files have changed."""

import os
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from pydantic import JsonValue

from distillkit.errors import InputError
from distillkit.report.html_templates import rendered
from distillkit.report.inspector.samples_reader import SamplesReader
from distillkit.report.page import page_html
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html
from distillkit.report.section import ReportSection
from distillkit.run_directory.run_lock import is_held_elsewhere
from distillkit.view.found_runs import found_runs, version_of
from distillkit.view.run_card import RunCard

STYLES = ("view.css",)
KEPT = 8
"""Reports that are kept, 5 MB each at most."""


@dataclass(slots=True)
class Pages:
    """The pages of the runs in a folder. Its methods may be called from several threads."""

    folder: Path
    _cards: dict[str, RunCard] = field(default_factory=dict)
    _reports: OrderedDict[str, tuple[str, str]] = field(default_factory=OrderedDict)
    """Key to version and page."""
    _readers: dict[str, SamplesReader] = field(default_factory=dict)
    """By key: what was read of a run's completions, so that a page that is made again reads only what is new."""
    _listing: Lock = field(default_factory=Lock)
    _reporting: Lock = field(default_factory=Lock)

    def index(self) -> str:
        """The list of runs, which its script fills and keeps up to date."""
        html = rendered("view_index.html", folder=str(self.folder))
        section = ReportSection("runs", "Runs", html, {"runs": self.runs()}, STYLES, ("view-index.js",))
        return page_html(
            self.folder.resolve().name or str(self.folder), "runs of this folder", [section], connects=True
        )

    def runs(self) -> list[JsonValue]:
        """What the list says of each run, those that changed last first."""
        with self._listing:
            found = found_runs(self.folder)
            self._cards = {key: self._cards.get(key) or RunCard(key, run, self.folder) for key, run in found.items()}
            told = [card.told() for card in self._cards.values()]
        told.sort(key=lambda card: -float(str(card["changed"])))
        return [*told]

    def version(self, key: str) -> str | None:
        """What changes when the report of a run does; None where there is no such run."""
        run = found_runs(self.folder).get(key)
        return None if run is None else self._version(run)

    def report(self, key: str) -> str | None:
        """The report of a run; None where there is no such run, or not any more."""
        run = found_runs(self.folder).get(key)
        if run is None:
            return None
        with self._reporting:
            version = self._version(run)
            if self._reports.get(key, ("", ""))[0] != version:
                reader = self._readers.pop(key, None) or SamplesReader()
                try:
                    page = report_html([read_run(run)], [_live(version)], connects=True, reader=reader)
                except InputError:
                    return None
                self._reports[key], self._readers[key] = (version, page), reader
            self._reports.move_to_end(key)
            while len(self._reports) > KEPT:
                dropped, _ = self._reports.popitem(last=False)
                self._readers.pop(dropped, None)
            return self._reports[key][1]

    def _version(self, run: Path) -> str:
        return version_of(run, is_held_elsewhere(run), os.getpid())


def _live(version: str) -> ReportSection:
    """Above a report: back to the list, and whether there is something new."""
    return ReportSection("live", "Live", rendered("view_live.html"), {"version": version}, STYLES, ("view-live.js",))
