"""Sink `csv`: the metrics as a table in a file, for a spreadsheet."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr

from distillkit import Evaluated, Event, RunContext, RunStarted, Sink, StepFinished, Teacher, eval_metrics, replacing
from distillkit_builtin.sinks.tracker import known

FILE = "metrics.csv"
STEP = "step"


class CsvSink(Sink):
    """A row a step in `metrics.csv` of the run's directory, a column a metric, as in `metrics.jsonl`.

    A cell is empty where a step has no such metric. A resumed run replaces the rows of steps that it trains again.
    """

    name: ClassVar[str] = "csv"
    writes: ClassVar[frozenset[str]] = frozenset({FILE})

    columns: tuple[str, ...] = Field((), description="The metrics to write, in this order; none: all, as they come.")

    _path: Path | None = PrivateAttr(None)
    _teachers: tuple[Teacher, ...] = PrivateAttr(())
    _names: list[str] = PrivateAttr(default_factory=list)
    _last: dict[str, float] = PrivateAttr(default_factory=dict)
    _step: int = PrivateAttr(-1)

    async def open(self, run: RunContext) -> None:
        """Know where to write."""
        self._path = None if run.run_dir is None else run.run_dir / FILE

    def emit(self, event: Event) -> None:
        """Write a step's metrics, or those of its evaluation into the same row."""
        if self._path is None:
            return
        match event:
            case RunStarted():
                self._teachers = event.teachers
                self._begin(self._path, event.first_step)
            case StepFinished():
                self._add(self._path, event.step, known(event.metrics))
            case Evaluated():
                self._add(self._path, event.step, known(eval_metrics(event.results, self._teachers)))

    def _begin(self, path: Path, first_step: int) -> None:
        """Take over the rows of the steps before."""
        rows = [row for row in read(path) if int(row[STEP]) < first_step]
        self._names = list(self.columns) or list(dict.fromkeys(name for row in rows for name in row if name != STEP))
        self._step = int(rows[-1][STEP]) if rows else -1
        self._last = {name: float(cell) for name, cell in rows[-1].items() if name != STEP and cell} if rows else {}
        self._rewrite(path, rows)

    def _add(self, path: Path, step: int, metrics: dict[str, float]) -> None:
        new = [] if self.columns else [name for name in metrics if name not in self._names]
        again = step == self._step
        self._last = {**self._last, **metrics} if again else metrics
        self._names += new
        self._step = step
        if new or again:
            rows = [row for row in read(path) if int(row[STEP]) != step]
            self._rewrite(path, [*rows, self._row()])
            return
        before = path.stat().st_size
        try:
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, [STEP, *self._names], extrasaction="ignore").writerow(self._row())
        except OSError:
            os.truncate(path, before)  # or the next row would stand behind a part of this one
            raise

    def _row(self) -> dict[str, object]:
        return {STEP: self._step, **self._last}

    def _rewrite(self, path: Path, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace the file, header first, by all that it is to hold."""
        with replacing(path) as new, new.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [STEP, *self._names], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file that this sink wrote; a last one that was cut off is left out."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = csv.DictReader(lines)
    return [row for row in rows if (row.get(STEP) or "").isdigit() and None not in row.values()]
