"""Folders that the library `datasets` saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builtin.datasets.saved_folders import Rows


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
