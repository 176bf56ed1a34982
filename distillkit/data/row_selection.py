"""Which rows of a source a run has, and in which order: what `data.filter` keeps, by the key of `data.sort`."""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import IntArray
from distillkit.data.counted import counted
from distillkit.data.parse_row import parse_columns
from distillkit.data.row_format.expressions import SORT, RowFilter, SortKey
from distillkit.errors import RowError
from distillkit.files.strict_json import shortened
from distillkit.raw_row import RawRow

Columns = Mapping[str, JsonValue]
SHOWN_ROWS, MOST_COLUMNS = 3, 5
"""Of how many rows, and of how many columns, a filter that keeps nothing is shown what they hold."""
ONE_KIND = "rows are sorted by one or the other"


class RowSelection:
    """Chooses rows while a source is read. Of each it keeps a number, and of keys that are texts, those until then."""

    def __init__(self, row_filter: RowFilter | None, sort: SortKey | None, *, descending: bool = False) -> None:
        """Nothing read yet."""
        self.read, self.kept = 0, 0
        self._filter, self._sort, self._descending = row_filter, sort, descending
        self._numbers: array[float] = array("d")
        self._texts: list[str] = []
        self._first: list[Columns] = []

    def takes(self, raw: RawRow) -> bool:
        """Whether the run has this row; its key is kept. Raises RowError where that cannot be said."""
        self.read += 1
        columns = parse_columns(raw)
        if self._filter is not None and len(self._first) < SHOWN_ROWS:
            self._first.append({name: columns[name] for name in sorted(self._filter.reads) if name in columns})
        if self._filter is not None and not self._filter.keeps(columns):
            return False
        if self._sort is not None:
            self._add(self._sort.of(columns))
        self.kept += 1
        return True

    def _add(self, key: float | str) -> None:
        if isinstance(key, str):
            if self._numbers:
                raise RowError(SORT, f"gives a text here and numbers before; {ONE_KIND}")
            self._texts.append(key)
        else:
            if self._texts:
                raise RowError(SORT, f"gives a number here and texts before; {ONE_KIND}")
            self._numbers.append(key)

    def ranks(self) -> IntArray | None:
        """The rank of each row that was taken, alike where keys are; None: rows are not sorted."""
        if self._sort is None:
            return None
        ranks: IntArray = np.unique(self._keys, return_inverse=True)[1].astype(np.int64, copy=False)
        return -ranks if self._descending else ranks

    @property
    def _keys(self) -> "np.ndarray":
        return np.array(self._texts, dtype=object) if self._texts else np.frombuffer(self._numbers, dtype=np.float64)

    def nothing(self) -> str:
        """Why there are no rows."""
        if not self.read:
            return "holds no rows"
        columns = list(dict.fromkeys(name for row in self._first for name in row))[:MOST_COLUMNS]
        more = ", ..." if self.read > SHOWN_ROWS else ""
        held = "".join(f"\n  {shortened(name, 60)}: {self._values(name)}{more}" for name in columns)
        return f"data.filter keeps none of {counted(self.read, 'row')}{f'; the first hold{held}' if held else ''}"

    def _values(self, column: str) -> str:
        """What the first rows hold in a column, as JSON."""
        values = [json.dumps(row[column], ensure_ascii=False) for row in self._first if column in row]
        return ", ".join(shortened(value, 60) for value in values)

    def notes(self, noun: str) -> Iterator[str]:
        """How many rows the filter keeps."""
        if self._filter is not None:
            yield f"data.filter keeps {self.kept:,} of {counted(self.read, noun)}"

    def warnings(self) -> Iterator[str]:
        """What sorts otherwise than it seems to."""
        before, behind = _numbers_out_of_order(self._texts)
        if before:
            yield (
                f"{SORT} gives texts that are numbers, as every cell of CSV is a text, and sorts them as texts: "
                f"{before} before {behind}; `| float` behind it sorts by the numbers"
            )


def _numbers_out_of_order(texts: Sequence[str]) -> tuple[str, str]:
    """Two texts that are next to one another as texts and not as numbers; empty where there are none."""
    try:
        keys = [(text, float(text)) for text in sorted(set(texts))]
    except ValueError:
        return "", ""
    pairs = ((shortened(repr(a), 40), shortened(repr(b), 40)) for (a, m), (b, n) in pairwise(keys) if m > n)
    return next(pairs, ("", ""))
