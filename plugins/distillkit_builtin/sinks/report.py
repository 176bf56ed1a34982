"""Sink `report`: one HTML file at the end of every run, in its directory, with all that the run measured."""

from pathlib import Path
from typing import ClassVar

from pydantic import PrivateAttr

from distillkit import Event, RunContext, RunFinished, Sink, write_report


class ReportSink(Sink):
    """`report.html` in the run's directory when the run is over, well or not: what `distillkit report` writes.

    It is read from the run's files and needs no network. `sinks: [console]` switches it off.
    """

    name: ClassVar[str] = "report"
    writes: ClassVar[frozenset[str]] = frozenset({"report.html"})
    closing_seconds: ClassVar[float] = 120.0

    _run_dir: Path | None = PrivateAttr(None)
    _over: bool = PrivateAttr(False)

    async def open(self, run: RunContext) -> None:
        """Keep where the run writes."""
        self._run_dir, self._over = run.run_dir, False

    def emit(self, event: Event) -> None:
        """Note that the run is over; the page is written when the sink is closed."""
        self._over = self._over or isinstance(event, RunFinished)

    async def close(self) -> None:
        """Write the page."""
        if self._over and self._run_dir is not None:
            self._over = False
            write_report(self._run_dir)
