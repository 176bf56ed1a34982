"""What a dataset plugin gives, in short."""

import json
from pathlib import Path
from typing import Any

from distillkit import RawRow
from distillkit_builtin.datasets.files import FilesDataset


def read(path: str | Path | list[str], **options: Any) -> list[tuple[int, Any]]:
    """Number and fields of each row of files; of one that cannot be read what is wrong."""
    rows = list(FilesDataset(path=path if isinstance(path, list) else str(path), **options).read())
    return [(row.number, json.loads(row.text) if isinstance(row, RawRow) else str(row.problem)) for row in rows]


def fields(path: str | Path | list[str], **options: Any) -> list[Any]:
    """The fields of each row of files."""
    return [row for _, row in read(path, **options)]
