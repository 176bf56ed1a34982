"""Rows of a file by filter and sort key, and their values in order."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit.data.indexed_rows import IndexedRows
from distillkit.data.row_format.expressions import RowFilter, SortKey
from distillkit.data.row_index import RowIndex
from distillkit.data.row_selection import RowSelection
from distillkit_builtin.datasets.files import FilesDataset

USER = [{"role": "user", "content": "Why?"}]


def indexed(
    tmp_path: Path,
    columns: Sequence[Any],
    *,
    keep: str | None = None,
    by: str | None = None,
    descending: bool = False,
    max_rows: int | None = None,
) -> tuple[IndexedRows, RowSelection]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": USER, **row}) + "\n" for row in columns), encoding="utf-8")
    selection = RowSelection(
        None if keep is None else RowFilter(keep), None if by is None else SortKey(by), descending=descending
    )
    index = RowIndex(FilesDataset(path=str(path)), max_rows, selection)
    return IndexedRows(index, ranks=selection.ranks()), selection


def values(rows: IndexedRows, order: Sequence[int], name: str = "n") -> list[Any]:
    return [rows.row(int(position)).fields[name] for position in order]


def trained(rows: IndexedRows, *, shuffle: bool, epoch: int = 0, seed: int = 0) -> list[Any]:
    return values(rows, [int(position) for position in rows.order(epoch, seed, shuffle=shuffle)])
