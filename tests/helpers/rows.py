"""Rows as the engine reads them, from a file or from one text."""

from pathlib import Path

from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.parse_row import parse_row
from distillkit.data.row_index import RowIndex, hash_of, row_id
from distillkit.raw_row import RawRow, RowFile
from distillkit.types import Row
from distillkit_builtin.datasets.files import FilesDataset

LINES = RowFile("rows.jsonl", unit="line")


def rows_of(path: str | Path, max_rows: int | None = None) -> IndexedRows:
    return IndexedRows(RowIndex(FilesDataset(path=str(path)), max_rows))


def row_of(text: bytes, number: int = 1) -> Row:
    return parse_row(RawRow(LINES, number, text), row_id(LINES, number, hash_of(text)))
