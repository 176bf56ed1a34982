"""Rows as their source holds them, before anything is made of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from distillkit.errors import RowError
from distillkit.frozen import Value


@dataclass(frozen=True, slots=True)
class RowFile(Value):
    """What rows come from: a file, a table, a split."""

    name: str
    """As messages show it, such as `data/train.jsonl`."""
    key: str = ""
    """What row ids call it where a source has several, such as `part-1.jsonl`: it should not change where all of them
    are moved. Empty: the only one."""
    unit: Literal["line", "row"] = "row"
    """What its rows are numbered by."""
    path: Path | None = None
    """Where the text of a row with an `offset` can be read again; None: no row has one."""

    def place(self, number: int) -> str:
        """Where a row is, for messages: `data/train.jsonl:12` by lines, else `data/train.parquet row 12`."""
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name} row {number}"


class RawRow(NamedTuple):
    """One row as JSON text. (A NamedTuple: there are millions, and it takes half the time of a dataclass.)"""

    file: RowFile
    number: int
    """Counted from 1, unique in its file, and the same at every reading."""
    text: bytes
    """One JSON object, UTF-8, without a line end in it."""
    offset: int | None = None
    """Where in `file.path` the text starts, a line of its own there; None: the engine keeps a copy of it in a temporary
    file."""

    @classmethod
    def of(cls, file: RowFile, number: int, fields: Mapping[str, object]) -> Self:
        """A row of these columns. Raises RowError for a value that JSON cannot hold, naming its column."""
        try:
            text = json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):  # UnicodeEncodeError, of half a character, is a ValueError
            raise _problem_of(fields) from None
        return cls(file, number, text)

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return self.file.place(self.number)


class UnreadableRow(NamedTuple):
    """A row that its source cannot give. The others go on, and all that are wrong are reported together."""

    file: RowFile
    number: int
    problem: RowError


def _problem_of(fields: Mapping[str, object]) -> RowError:
    for name, value in fields.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return RowError(str(name)[:60], f"cannot be written as JSON: {str(error)[:200]}")
    return RowError("row", "cannot be written as JSON")
