"""Files that are there whole after a power failure too: written aside, flushed, renamed, and the name flushed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue


def write_json(path: Path, value: Mapping[str, JsonValue]) -> None:
    """Replace `path`, whole or not at all. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    flush(aside)
    aside.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """A file's content, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
