"""Sink `csv`: the metrics as a table in a file, for a spreadsheet."""

import csv
import io
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
    _last_at: int = PrivateAttr(0)
    """Where, in bytes, the newest row begins."""
    _end: int = PrivateAttr(0)
    """How long the file is."""

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
        if new or path.stat().st_size != self._end:  # another header, or somebody else has written
            rows = [row for row in read(path) if int(row[STEP]) != step]
            self._rewrite(path, [*rows, self._row()])
        else:
            self._write_behind(path, self._last_at if again else self._end)

    def _write_behind(self, path: Path, place: int) -> None:
        """Write the newest row at this byte, where the one that it replaces begins, or the file ends."""
        row, self._last_at = self._text([self._row()]), place
        with path.open("r+b", buffering=0) as file:
            file.seek(place)
            before = file.read()
            try:
                _write(file, place, row)
            except OSError:
                _write(file, place, before)  # or the next row would stand behind a part of this one
                raise
        self._end = place + len(row)

    def _row(self) -> dict[str, object]:
        return {STEP: self._step, **self._last}

    def _rewrite(self, path: Path, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace the file, header first, by all that it is to hold."""
        header = {name: name for name in (STEP, *self._names)}
        above, last = self._text([header, *rows[:-1]]), self._text(rows[-1:])
        self._end = -1  # unless it succeeds: then the header is still another
        with replacing(path) as new:
            new.write_bytes(above + last)
        self._last_at, self._end = len(above), len(above + last)

    def _text(self, rows: Sequence[Mapping[str, object]]) -> bytes:
        text = io.StringIO(newline="")
        csv.DictWriter(text, [STEP, *self._names], extrasaction="ignore").writerows(rows)
        return text.getvalue().encode("utf-8")


def _write(file: io.FileIO, place: int, data: bytes) -> None:
    """Let the file end with `data` from this byte on."""
    file.seek(place)
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
    file.truncate(place + len(data))


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file that this sink wrote; a last one that was cut off is left out."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = csv.DictReader(lines)
    return [row for row in rows if (row.get(STEP) or "").isdigit() and None not in row.values()]
