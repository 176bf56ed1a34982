"""Parquet, a batch of rows at a time, whatever the size of the file's row groups."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit import DataError, RawRow, RowFile, UnreadableRow
from distillkit_builtin.datasets.arrow_rows import arrow_rows
from distillkit_builtin.datasets.arrow_values import is_json
from distillkit_builtin.datasets.data_extra import data_extra

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS, BATCH_BYTES = 64, 2**20
"""Rows that are decoded at once at most, and what they should take; it goes by the mean of a row group. A long value
that many rows share is stored once, so that its row group does not say what it takes: hence no more rows than these."""
BUFFER = 2**16
"""Bytes of a column that are read at once. Without it pyarrow reads a row group's whole columns."""


def read_parquet(file: RowFile, path: Path) -> Iterator[RawRow | UnreadableRow]:
    """Every row, without the columns that `left_out` names. Raises DataError for a file that is damaged."""
    with _opened(path) as table:
        names = _columns(table.schema_arrow, path)
        number = 1
        for group in range(table.num_row_groups):
            rows = _rows_at_once(table.metadata.row_group(group))
            for batch in table.iter_batches(rows, [group], columns=names, use_threads=False):
                yield from arrow_rows(file, number, batch.select(names))
                number += batch.num_rows


def left_out(path: Path) -> Sequence[str]:
    """The columns whose values have no form in JSON, such as bytes and images, each with its type."""
    with _opened(path) as table:
        return [f"{field.name} ({field.type})" for field in table.schema_arrow if not is_json(field.type)]


@contextmanager
def _opened(path: Path) -> "Iterator[pq.ParquetFile]":
    with data_extra(f"{path}: reading Parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True) as table:
            yield table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last of names of columns
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: is no whole Parquet file: {reason}. Fetch or write it again") from error


def _columns(schema: "pa.Schema", path: Path) -> list[str]:
    twice = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path}: has two columns {twice!r}; which one is meant is not said")
    names = [field.name for field in schema if is_json(field.type)]
    if not names:
        raise DataError(f"{path}: has no column of text, numbers, lists or structs, but {', '.join(schema.names)}")
    return names


def _rows_at_once(group: "pq.RowGroupMetaData") -> int:
    mean: int = group.total_byte_size // max(1, group.num_rows)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, mean)))
