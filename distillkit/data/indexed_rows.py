"""The rows of a dataset as the run goes through them: parsed, in the order of each epoch, from any row on."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import IntArray
from distillkit.data.parse_row import parse_columns, parse_row
from distillkit.data.problems import Problems, said_of
from distillkit.data.row_format.row_format import RowFormat
from distillkit.data.row_index import RowIndex
from distillkit.errors import DataError, RowError
from distillkit.raw_row import RawRow
from distillkit.types import Row

BATCH_ROWS, BATCH_BYTES = 128, 2**20
"""Where a batch of rows that are inspected together ends."""


class IndexedRows:
    """Rows by position: those of an index, or some of them."""

    def __init__(self, index: RowIndex, positions: IntArray | None = None, ranks: IntArray | None = None) -> None:
        """Rows at `positions` of the index, in this order; None: all. `ranks` of these rows sort each epoch."""
        self._index = index
        self._format: RowFormat | None = None
        self._ranks = ranks
        self._positions = np.arange(len(index), dtype=np.int64) if positions is None else positions

    def formatted(self, row_format: RowFormat) -> "IndexedRows":
        """The same rows, with the fields that `row_format` makes of their columns."""
        rows = copy(self)
        rows._format = row_format
        return rows

    @property
    def place(self) -> str:
        """What messages call where the rows are."""
        return self._index.place

    @property
    def digest(self) -> str:
        """A hash of the rows' content, numbers and order, which of their source they are, not where that is."""
        if len(self) == len(self._index):
            return self._index.digest
        chosen = self._positions.astype("<i8").tobytes()
        return hashlib.sha256(self._index.digest.encode() + chosen).hexdigest()[:16]

    @property
    def content_hashes(self) -> IntArray:
        """[N] of each row's content, in 40 bits: a row has the same one wherever it stands."""
        return self._index.content_hashes[self._positions]

    def at(self, positions: IntArray) -> "IndexedRows":
        """Those of these rows that are at `positions`, which ascend."""
        rows = copy(self)
        rows._positions = self._positions[positions]
        rows._ranks = None if self._ranks is None else self._ranks[positions]
        return rows

    def place_of(self, position: int) -> str:
        """Where the row at `position` is, for messages."""
        return self._index.place_of(int(self._positions[position]))

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._positions)

    def row(self, position: int, epoch: int = 0) -> Row:
        """The row at `position` in the source's order. Raises DataError if it is not what it was."""
        return replace(next(self._read([position])), epoch=epoch)

    def rows(self) -> Iterator[Row]:
        """All rows in the source's order, read lazily. Raises DataError at one that is wrong."""
        self._index.unreadable.raise_if_any(self._count)
        return self._read(range(len(self)))

    def rows_at(self, positions: Iterable[int]) -> Iterator[Row]:
        """The rows at `positions`, in this order. Raises DataError at one that is wrong."""
        return self._read(positions)

    def columns(self, positions: Iterable[int]) -> Iterator[Mapping[str, JsonValue]]:
        """What the rows at `positions` hold in their source; without those that are wrong."""
        for _, raw in self._raw(positions, compare=False):
            with suppress(RowError):
                yield parse_columns(raw)

    def _read(self, positions: Iterable[int]) -> Iterator[Row]:
        for at, raw in self._raw(positions, compare=True):
            try:
                yield self._parsed(at, raw)
            except RowError as error:
                raise DataError(said_of(raw.place, error)) from error

    def _raw(self, positions: Iterable[int], *, compare: bool) -> Iterator[tuple[int, RawRow]]:
        """Where in the index each row is, and the row."""
        return self._index.read(map(self._positions.item, positions), compare=compare)

    def _parsed(self, at: int, raw: RawRow) -> Row:
        return parse_row(raw, self._index.id_of(at), self._format)

    def order(self, epoch: int, seed: int, *, shuffle: bool) -> IntArray:
        """The positions of one epoch's rows, in the order in which they are trained."""
        count = len(self)
        order = np.random.default_rng([seed, epoch]).permutation(count) if shuffle else np.arange(count)
        order = order.astype(np.int64, copy=False)
        return order if self._ranks is None else order[np.argsort(self._ranks[order], kind="stable")]

    def validate(self, inspect: "Callable[[Row], None] | InBatches") -> None:
        """Parse every row and show it to `inspect`. Raises DataError naming every row that is wrong."""
        problems = self._index.unreadable.copy()
        advice: Sequence[str] = ()
        if isinstance(inspect, InBatches):
            self._validate_in_batches(inspect, problems)
            advice = inspect.advice()
        else:
            self._validate_one_by_one(inspect, problems)
        problems.raise_if_any(self._count, advice)

    @property
    def _count(self) -> int:
        """How many rows there are; all that were read, where some of them have no position."""
        return self._index.read_count if self._index.unreadable.count else len(self)

    def _validate_one_by_one(self, inspect: Callable[[Row], None], problems: Problems) -> None:
        for at, raw in self._raw(range(len(self)), compare=False):
            try:
                inspect(self._parsed(at, raw))
            except RowError as error:
                problems.add(raw.place, error, raw.text)

    def _validate_in_batches(self, inspect: "InBatches", problems: Problems) -> None:
        raw_rows = self._raw(range(len(self)), compare=False)
        while batch := list(_next_rows(raw_rows)):
            parsed = [(raw, self._parsed_or_problem(at, raw)) for at, raw in batch]
            found = iter(inspect.look([row for _, row in parsed if isinstance(row, Row)]))
            for raw, row in parsed:
                problem = row if isinstance(row, RowError) else next(found)
                if problem is not None:  # of a prompt: to know the row's columns would not help
                    problems.add(raw.place, problem)

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
    advice: Callable[[], Sequence[str]] = tuple
    """What there is to say of all that it found to be wrong, behind the last row."""


def _next_rows(raw_rows: Iterator[tuple[int, RawRow]]) -> Iterator[tuple[int, RawRow]]:
    """The next rows: so many that what a call costs is shared, so few that they take no memory to speak of."""
    size = 0
    for at, raw in islice(raw_rows, BATCH_ROWS):
        yield at, raw
        size += len(raw.text)
        if size > BATCH_BYTES:
            return
