"""JSONL files to Rows, by their place in the file.

Of each row it holds where it stands and 40 bits of what it held: 17 bytes, so a million rows are cheap, and a row that
changes while a run goes on is noticed.
"""

import stat
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distillkit.arrays import IntArray
from distillkit.data.file_kind import HEAD, other_kind
from distillkit.data.parse_row import DIGEST, LINE_LIMIT, digest_of, is_cut, parse_row, without_mark
from distillkit.errors import DataError, RowError
from distillkit.files.strict_json import shortened
from distillkit.types import Row

ROWS = "rows are JSON lines: each line is a JSON object with `messages`"
SHOWN_PROBLEMS = 20
BATCH_ROWS, BATCH_BYTES = 128, 2**20
"""Where a batch of rows that are inspected together ends."""
MESSAGE_LIMIT = 1000
"""Characters of what is said of a row, which may quote it."""


@dataclass(slots=True)
class Problems:
    """What is wrong with a file's rows: many are reported at once, the first 20 in full."""

    path: Path
    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, line: int, error: RowError) -> None:
        """Note one more row that is wrong."""
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{self.path}:{line}: {shortened(str(error), MESSAGE_LIMIT)}")

    def raise_if_any(self) -> None:
        """Raise DataError with everything that was noted."""
        if self.count:
            more = self.count - len(self.shown)
            rest = [f"... and {more} more rows with problems"] if more else []
            raise DataError("\n".join([*self.shown, *rest]))


class Dataset:
    """The rows of one JSONL file, by position."""

    def __init__(self, path: Path, max_rows: int | None = None) -> None:
        """Find where each line starts. Raises DataError for a file that is absent, unreadable, empty or no file."""
        self.path = path
        self._offsets = array("Q")
        self._lines = array("I")
        self._digests = bytearray()
        try:
            mode = path.stat().st_mode
            problem = self._index(max_rows) if stat.S_ISREG(mode) else None
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file (looked from {Path.cwd()})") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:  # a NUL or half of a character in the name
            raise DataError(f"{str(path)!r}: no such file; no file can be called that") from error
        if not stat.S_ISREG(mode):  # a pipe or a device, which may wait, or never end
            raise DataError(f"{path}: cannot be read: it is no regular file, and rows are read more than once")
        if problem is not None:
            raise DataError(f"{path}: {problem}; {ROWS}")

    def _index(self, max_rows: int | None) -> str | None:
        """Find the lines of a file of JSON lines; of another the kind, as a problem to say."""
        offset = 0
        with self.path.open("rb") as file:
            if (kind := other_kind(file.read(HEAD))) is not None:
                return kind
            file.seek(0)
            for line, (raw, length) in enumerate(_lines(file), start=1):
                if without_mark(raw, line).strip() or is_cut(raw):
                    self._offsets.append(offset)
                    self._lines.append(line)
                    self._digests += digest_of(raw)
                offset += length
                if max_rows is not None and len(self._offsets) == max_rows:
                    break
        return None if self._offsets else "holds no rows"

    def __len__(self) -> int:
        """How many rows there are, blank lines not counted."""
        return len(self._offsets)

    def row(self, index: int, epoch: int = 0) -> Row:
        """The row at `index` in file order. Raises DataError if it is not what it was."""
        return replace(next(self._read([index])), epoch=epoch)

    def rows(self) -> Iterator[Row]:
        """All rows in file order, read lazily. Raises DataError at one that is wrong."""
        return self._read(range(len(self)))

    def _read(self, indices: Iterable[int]) -> Iterator[Row]:
        for index, raw in self._raw(indices):
            where = f"{self.path}:{self._lines[index]}"
            if digest_of(raw) != self._digests[index * DIGEST : (index + 1) * DIGEST]:
                raise DataError(
                    f"{where}: the file changed during the run; a run is a function of its data, so put the file "
                    "back and go on by --resume, or start anew"
                )
            try:
                yield parse_row(raw, self._lines[index])
            except RowError as error:
                raise DataError(f"{where}: {shortened(str(error), MESSAGE_LIMIT)}") from error

    def _raw(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as file:
                here = 0
                for index in indices:
                    if self._offsets[index] != here:
                        file.seek(self._offsets[index])
                    raw = file.readline(LINE_LIMIT + 1)
                    here = self._offsets[index] + len(raw)
                    yield index, raw
        except OSError as error:
            raise DataError(f"{self.path}: can no longer be read: {error.strerror}") from error

    def order(self, epoch: int, seed: int, *, shuffle: bool) -> IntArray:
        """The positions of one epoch's rows, in the order in which they are trained."""
        if not shuffle:
            return np.arange(len(self), dtype=np.int64)
        return np.random.default_rng([seed, epoch]).permutation(len(self)).astype(np.int64, copy=False)

    def validate(self, inspect: "Callable[[Row], None] | InBatches") -> None:
        """Parse every row and show it to `inspect`. Raises DataError naming every row that is wrong."""
        problems = Problems(self.path)
        if isinstance(inspect, InBatches):
            self._validate_in_batches(inspect, problems)
        else:
            self._validate_one_by_one(inspect, problems)
        problems.raise_if_any()

    def _validate_one_by_one(self, inspect: Callable[[Row], None], problems: Problems) -> None:
        for index, raw in self._raw(range(len(self))):
            try:
                inspect(parse_row(raw, self._lines[index]))
            except RowError as error:
                problems.add(self._lines[index], error)

    def _validate_in_batches(self, inspect: "InBatches", problems: Problems) -> None:
        raw = self._raw(range(len(self)))
        while batch := list(_next_lines(raw)):
            parsed = [(self._lines[index], _parsed(line, self._lines[index])) for index, line in batch]
            found = iter(inspect.look([row for _, row in parsed if isinstance(row, Row)]))
            for line, row in parsed:
                problem = row if isinstance(row, RowError) else next(found)
                if problem is not None:
                    problems.add(line, problem)


@dataclass(frozen=True, slots=True)
class InBatches:
    """An inspection that takes many rows at once less time than one after another."""

    look: Callable[[Sequence[Row]], Sequence[RowError | None]]
    """What is wrong with each row, in the order given."""


def _next_lines(raw: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The next lines: so many that what a call costs is shared, so few that they take no memory to speak of."""
    size = 0
    for index, line in islice(raw, BATCH_ROWS):
        yield index, line
        size += len(line)
        if size > BATCH_BYTES:
            return


def _parsed(raw: bytes, line: int) -> Row | RowError:
    try:
        return parse_row(raw, line)
    except RowError as error:
        return error


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, of one that is too long only the start, and its whole length."""
    while raw := file.readline(LINE_LIMIT + 1):
        part, length = raw, len(raw)
        while is_cut(part):
            part = file.readline(LINE_LIMIT + 1)
            length += len(part)
        yield raw, length
