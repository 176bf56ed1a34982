"""Folders that the library `datasets` saved, and their rows as we read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distillkit.raw_row import RawRow
from distillkit_builtin.datasets.hf import HuggingFaceDataset

Rows = list[dict[str, Any]]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    """Write rows (or a split of each name) as `datasets` does; returns the folder."""
    datasets = pytest.importorskip("datasets")

    def write(rows: Any = None, features: Any = None, name: str = "saved", **splits: Rows) -> str:
        folder = str(tmp_path / name)
        found = {split: datasets.Dataset.from_list(of, features=features) for split, of in splits.items()}
        whole = datasets.DatasetDict(found) if splits else datasets.Dataset.from_list(rows, features=features)
        whole.save_to_disk(folder)
        return folder

    return write


def rows_of(path: str) -> list[Any]:
    rows = list(HuggingFaceDataset(path=path).read())
    assert all(isinstance(row, RawRow) for row in rows)
    return [json.loads(row.text) for row in rows]
