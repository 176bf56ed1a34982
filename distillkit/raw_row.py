"""Rows as their source holds them, before anything is made of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from distillkit.errors import RowError
from distillkit.frozen import Value

MAX_ROW_BYTES = 16 * 2**20
"""Bytes of a row's text, about four million tokens. What is longer is refused; a source that reads lines need not hold
more of one, so that a file of any size without line ends takes no more memory than this."""


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
    """Where the texts of its rows can be read again, by their `offset`; None: the engine keeps them in a
    temporary file."""

    def place(self, number: int) -> str:
        """Where a row is, for messages: `data/train.jsonl:12` by lines, else `data/train.parquet row 12`."""
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name} row {number}"


class RawRow(NamedTuple):
    """One row as JSON text; a NamedTuple, which takes half the time of a dataclass, since there are millions."""

    file: RowFile
    number: int
    """Counted from 1, unique in its file, and the same at every reading."""
    text: bytes
    """One JSON object, UTF-8, without a line end in it."""
    offset: int | None = None
    """Where in `file.path` the text starts, a line of its own there; None where that is None."""

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
    """As that of a `RawRow`."""
    problem: RowError


def too_long(file: RowFile) -> RowError:
    """What is wrong with a row beyond `MAX_ROW_BYTES`."""
    rest = "; each row is a line of its own" if file.unit == "line" else ""
    return RowError(file.unit, f"is longer than {MAX_ROW_BYTES // 2**20} MiB{rest}")


def _problem_of(fields: Mapping[str, object]) -> RowError:
    for name, value in fields.items():
        try:
            json.dumps({name: value}, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            return RowError(str(name)[:60], f"cannot be written as JSON: {str(error)[:200]}")
    return RowError("row", "cannot be written as JSON")
