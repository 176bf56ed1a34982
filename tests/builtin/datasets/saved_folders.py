"""Folders that the library `datasets` saved, and their rows as we read them."""

import json
from typing import Any

from distillkit.raw_row import RawRow
from distillkit_builtin.datasets.hf import HuggingFaceDataset

Rows = list[dict[str, Any]]


def rows_of(path: str) -> list[Any]:
    rows = list(HuggingFaceDataset(path=path).read())
    assert all(isinstance(row, RawRow) for row in rows)
    return [json.loads(row.text) for row in rows]
