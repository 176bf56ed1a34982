"""Arrow batches as rows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import JsonValue

from distillkit import RawRow, RowError, RowFile, UnreadableRow
from distillkit_builtin.datasets.arrow_values import json_column

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_rows(file: RowFile, first: int, batch: "pa.RecordBatch") -> Iterator[RawRow | UnreadableRow]:
    """Each row of a batch of columns that are JSON, counted from `first`; one whose value is none is unreadable."""
    import pyarrow as pa

    names = batch.schema.names
    try:
        values = [json_column(column) for column in batch.columns]
    except (ValueError, OverflowError, pa.ArrowException):
        values = None
    for place in range(batch.num_rows):
        number = first + place
        try:
            cells = [column[place] for column in values] if values is not None else _cells(batch, place)
            yield RawRow.of(file, number, dict(zip(names, cells, strict=True)))
        except RowError as error:
            yield UnreadableRow(file, number, error)


def _cells(batch: "pa.RecordBatch", place: int) -> list[JsonValue]:
    """One row by itself. Raises RowError naming the column whose value is wrong."""
    import pyarrow as pa

    cells: list[JsonValue] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            cells += json_column(column.slice(place, 1))
        except (ValueError, OverflowError, pa.ArrowException) as error:
            raise RowError(name, f"cannot be read: {' '.join(str(error).split())[:200]}") from error
    return cells
