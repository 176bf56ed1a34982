"""The rows of a dataset as the run goes through them: parsed, in the order of each epoch, from any row on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from distillkit.arrays import IntArray
from distillkit.data.parse_row import parse_row
from distillkit.data.problems import Problems, said_of
from distillkit.data.row_index import RowIndex
from distillkit.errors import DataError, RowError
from distillkit.raw_row import RawRow
from distillkit.types import Row

BATCH_ROWS, BATCH_BYTES = 128, 2**20
"""Where a batch of rows that are inspected together ends."""


class IndexedRows:
    """Rows by position: those of an index, or some of them."""

    def __init__(self, index: RowIndex, positions: IntArray | None = None) -> None:
        """Rows at `positions` of the index, in this order; None: all."""
        self._index = index
        self._positions = np.arange(len(index), dtype=np.int64) if positions is None else positions

    @property
    def place(self) -> str:
        """What messages call where the rows are."""
        return self._index.place

    @property
    def digest(self) -> str:
        """A hash of the rows' content, numbers and order, not of where they are."""
        return self._index.digest

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._positions)

    def row(self, position: int, epoch: int = 0) -> Row:
        """The row at `position` in the source's order. Raises DataError if it is not what it was."""
        return replace(next(self._read([position])), epoch=epoch)

    def rows(self) -> Iterator[Row]:
        """All rows in the source's order, read lazily. Raises DataError at one that is wrong."""
        self._index.unreadable.raise_if_any()
        return self._read(range(len(self)))

    def _read(self, positions: Iterable[int]) -> Iterator[Row]:
        for at, raw in self._raw(positions, compare=True):
            try:
                yield self._parsed(at, raw)
            except RowError as error:
                raise DataError(said_of(raw.place, error)) from error

    def _raw(self, positions: Iterable[int], *, compare: bool) -> Iterator[tuple[int, RawRow]]:
        """Where in the index each row is, and the row."""
        return self._index.read((int(self._positions[position]) for position in positions), compare=compare)

    def _parsed(self, at: int, raw: RawRow) -> Row:
        return parse_row(raw, self._index.id_of(at))

    def order(self, epoch: int, seed: int, *, shuffle: bool) -> IntArray:
        """The positions of one epoch's rows, in the order in which they are trained."""
        if not shuffle:
            return np.arange(len(self), dtype=np.int64)
        return np.random.default_rng([seed, epoch]).permutation(len(self)).astype(np.int64, copy=False)

    def validate(self, inspect: "Callable[[Row], None] | InBatches") -> None:
        """Parse every row and show it to `inspect`. Raises DataError naming every row that is wrong."""
        problems = self._index.unreadable.copy()
        if isinstance(inspect, InBatches):
            self._validate_in_batches(inspect, problems)
        else:
            self._validate_one_by_one(inspect, problems)
        problems.raise_if_any()

    def _validate_one_by_one(self, inspect: Callable[[Row], None], problems: Problems) -> None:
        for at, raw in self._raw(range(len(self)), compare=False):
            try:
                inspect(self._parsed(at, raw))
            except RowError as error:
                problems.add(raw.place, error)

    def _validate_in_batches(self, inspect: "InBatches", problems: Problems) -> None:
        raw_rows = self._raw(range(len(self)), compare=False)
        while batch := list(_next_rows(raw_rows)):
            parsed = [(raw.place, self._parsed_or_problem(at, raw)) for at, raw in batch]
            found = iter(inspect.look([row for _, row in parsed if isinstance(row, Row)]))
            for place, row in parsed:
                problem = row if isinstance(row, RowError) else next(found)
                if problem is not None:
                    problems.add(place, problem)

    def _parsed_or_problem(self, at: int, raw: RawRow) -> Row | RowError:
        try:
            return self._parsed(at, raw)
        except RowError as error:
            return error


@dataclass(frozen=True, slots=True)
class InBatches:
    """An inspection that takes many rows at once less time than one after another."""

    look: Callable[[Sequence[Row]], Sequence[RowError | None]]
    """What is wrong with each row, in the order given."""


def _next_rows(raw_rows: Iterator[tuple[int, RawRow]]) -> Iterator[tuple[int, RawRow]]:
    """The next rows: so many that what a call costs is shared, so few that they take no memory to speak of."""
    size = 0
    for at, raw in islice(raw_rows, BATCH_ROWS):
        yield at, raw
        size += len(raw.text)
        if size > BATCH_BYTES:
            return
