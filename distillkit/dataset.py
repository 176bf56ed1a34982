"""JSONL files to Rows. The only place that sees raw dicts.

Of each row it holds where it stands and 40 bits of what it held, so a million rows are cheap, and a row that changes
while a run goes on is noticed.
"""

import codecs
import hashlib
import json
import re
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from distillkit.errors import DataError, RowError
from distillkit.types import IntArray, Message, Messages, Row

SHOWN_PROBLEMS = 20
ROLES_OF_MESSAGES = ("system", "developer", "user", "assistant", "tool")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a UTF-16 pair: JSON's escapes can spell one, and it is no text."""


@dataclass(slots=True)
class Problems:
    """What is wrong with a file's rows: many are reported at once, the first 20 in full."""

    path: Path
    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, line: int, error: RowError) -> None:
        """Note one more row that is wrong."""
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(f"{self.path}:{line}: {error}")

    def raise_if_any(self) -> None:
        """Raise DataError with everything that was noted."""
        if self.count:
            more = self.count - len(self.shown)
            rest = [f"... and {more} more rows with problems"] if more else []
            raise DataError("\n".join([*self.shown, *rest]))


class Dataset:
    """The rows of one JSONL file, by position."""

    def __init__(self, path: Path, max_rows: int | None = None) -> None:
        """Find where each line starts. Raises DataError for a file that is absent, unreadable or empty."""
        self.path = path
        self._offsets = array("Q")
        self._lines = array("Q")
        self._digests = array("Q")
        try:
            self._index(max_rows)
        except FileNotFoundError as error:
            raise DataError(f"{path}: no such file (looked from {Path.cwd()})") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        if not self._offsets:
            raise DataError(f"{path}: holds no rows; each line must be a JSON object with `messages`")

    def _index(self, max_rows: int | None) -> None:
        offset = 0
        with self.path.open("rb") as file:
            for line, raw in enumerate(file, start=1):
                if raw.strip():
                    self._offsets.append(offset)
                    self._lines.append(line)
                    self._digests.append(int(_digest(raw), 16))
                offset += len(raw)
                if max_rows is not None and len(self._offsets) == max_rows:
                    break

    def __len__(self) -> int:
        """How many rows there are, blank lines not counted."""
        return len(self._offsets)

    def row(self, index: int, epoch: int = 0) -> Row:
        """The row at `index` in file order. Raises DataError if it is not what it was."""
        return replace(next(self._read([index])), epoch=epoch)

    def rows(self) -> Iterator[Row]:
        """All rows in file order, read as they are asked for. Raises DataError at one that is wrong."""
        return self._read(range(len(self)))

    def _read(self, indices: Iterable[int]) -> Iterator[Row]:
        for index, raw in self._raw(indices):
            where = f"{self.path}:{self._lines[index]}"
            if int(_digest(raw), 16) != self._digests[index]:
                raise DataError(
                    f"{where}: the file changed during the run; a run is a function of its data, so put the file "
                    "back and go on by --resume, or start anew"
                )
            try:
                yield parse_row(raw, self._lines[index])
            except RowError as error:
                raise DataError(f"{where}: {error}") from error

    def _raw(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as file:
                for index in indices:
                    file.seek(self._offsets[index])
                    yield index, file.readline()
        except OSError as error:
            raise DataError(f"{self.path}: can no longer be read: {error.strerror}") from error

    def order(self, epoch: int, seed: int, *, shuffle: bool) -> IntArray:
        """The positions of one epoch's rows, in the order in which they are trained."""
        if not shuffle:
            return np.arange(len(self), dtype=np.int64)
        return np.random.default_rng([seed, epoch]).permutation(len(self)).astype(np.int64)

    def validate(self, inspect: Callable[[Row], None]) -> None:
        """Parse every row and call `inspect` on it. Raises DataError naming every row that is wrong."""
        problems = Problems(self.path)
        for index, raw in self._raw(range(len(self))):
            try:
                inspect(parse_row(raw, self._lines[index]))
            except RowError as error:
                problems.add(self._lines[index], error)
        problems.raise_if_any()


def parse_row(raw: bytes, line: int) -> Row:
    """One line as a Row. Raises RowError naming the field that is wrong."""
    fields = _parse_object(raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw)
    if "messages" not in fields:
        raise RowError("messages", f"is missing; the row has {', '.join(map(repr, fields)) or 'no fields'}")
    return Row(f"{line}-{_digest(raw)}", line, parse_messages(fields["messages"], "messages"), fields)


def _digest(raw: bytes) -> str:
    """10 hex digits of what a line holds."""
    return hashlib.sha256(raw.strip()).hexdigest()[:10]


def _parse_object(raw: bytes) -> Mapping[str, JsonValue]:
    try:
        value = json.loads(raw.decode("utf-8"))
        broken = _lone_surrogate(value, "") if b"\\u" in raw else None
    except UnicodeDecodeError as error:
        raise RowError(
            "line", f"is not UTF-8: byte {error.start} is 0x{raw[error.start]:02x}; save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise RowError("line", f"is not JSON: {error.msg} at column {error.colno}") from error
    except ValueError as error:  # of Python, which turns no more digits into an integer
        raise RowError("line", f"has an integer of more than {sys.get_int_max_str_digits()} digits") from error
    except RecursionError as error:
        raise RowError("line", "is nested too deeply") from error
    if broken is not None:
        raise RowError(broken or "line", "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text")
    if not isinstance(value, dict):
        raise RowError("line", f"is a JSON {_json_type(value)}, not an object with `messages`")
    return value


def _lone_surrogate(value: JsonValue, name: str) -> str | None:
    """The field, such as `messages[0].content`, whose text no tokenizer takes; None: there is none."""
    inner: Iterable[tuple[str, JsonValue]] = ()
    if isinstance(value, str):
        return name if LONE_SURROGATE.search(value) else None
    if isinstance(value, list):
        inner = ((f"{name}[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, dict):
        keys: Iterable[tuple[str, JsonValue]] = ((name, key) for key in value)
        inner = chain(keys, ((f"{name}.{key}" if name else key, item) for key, item in value.items()))
    return next((found for where, item in inner if (found := _lone_surrogate(item, where)) is not None), None)


def parse_messages(value: JsonValue, name: str) -> Messages:
    """A row's list of chat messages, ready to be answered by the assistant. Raises RowError."""
    if not isinstance(value, list):
        raise RowError(name, f"is a JSON {_json_type(value)}, not a list of messages")
    if not value:
        raise RowError(name, "is empty; it needs at least one user message")
    messages = tuple(_parse_message(message, f"{name}[{i}]") for i, message in enumerate(value))
    if messages[-1].role == "assistant":
        raise RowError(name, "ends with an assistant message; the student writes that turn, so end with the user's")
    return messages


def _parse_message(value: JsonValue, name: str) -> Message:
    if not isinstance(value, dict):
        raise RowError(name, f'is a JSON {_json_type(value)}, not {{"role": ..., "content": ...}}')
    role = value.get("role")
    if role not in ROLES_OF_MESSAGES:
        raise RowError(f"{name}.role", f"is {role!r}, not one of {', '.join(ROLES_OF_MESSAGES)}")
    if "content" not in value:
        raise RowError(f"{name}.content", "is missing")
    extra = {key: item for key, item in value.items() if key not in ("role", "content")}
    return Message(str(role), _text_of(value["content"], f"{name}.content"), extra)


def _text_of(content: JsonValue, name: str) -> str:
    """A message's text; a list of OpenAI text parts is joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError(name, f"is a JSON {_json_type(content)}, not text")
    parts: list[str] = []
    for i, part in enumerate(content):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise RowError(f"{name}[{i}]", 'is not {"type": "text", "text": ...}; only text can be distilled')
        parts.append(str(part["text"]))
    return "".join(parts)


def _json_type(value: JsonValue) -> str:
    names = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")
