from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, PrivateAttr

from distillkit import DataError, Dataset, RawRow, RowFile
from distillkit.errors import PluginError
from distillkit.testing import check_plugin
from distillkit_builtin.datasets.files import FilesDataset
from engine.testing.numbers_dataset import TABLE, Numbers


class Held(Numbers):
    """All at once."""

    def read(self) -> Any:
        return [self.row(1), self.row(2)]


class HeldIterator(Held):
    """All at once, disguised."""

    def read(self) -> Any:
        return iter(super().read())


class Empty(Numbers):
    """No rows."""

    def read(self) -> Iterator[Any]:
        yield from ()


class Fickle(Numbers):
    """Other content each time."""

    _readings: int = PrivateAttr(0)

    def read(self) -> Iterator[Any]:
        self._readings += 1
        yield RawRow.of(TABLE, 1, {"reading": self._readings})


class Shuffled(Fickle):
    """Another order at the second reading."""

    def read(self) -> Iterator[Any]:
        self._readings += 1
        for number in (1, 3) if self._readings == 1 else (3, 1):
            yield self.row(number)


class Shorter(Fickle):
    """Fewer rows at the third reading."""

    def read(self) -> Iterator[Any]:
        self._readings += 1
        yield from map(self.row, range(1, 5 - self._readings // 3))


class Cursor(Numbers):
    """One cursor for all readings."""

    _next: int = PrivateAttr(0)

    def read(self) -> Iterator[Any]:
        self._next = 1
        while self._next <= self.count:
            yield self.row(self._next)
            self._next += 1


class Repeated(Numbers):
    """A number stands twice."""

    def row(self, number: int) -> Any:
        return RawRow.of(TABLE, min(number, 2), {"x": number})


class Zero(Numbers):
    """Counted as Python does."""

    def row(self, number: int) -> Any:
        return RawRow.of(TABLE, number - 1, {"x": number})


class Mapping(Numbers):
    """Gives what it read."""

    def row(self, number: int) -> Any:
        return {"x": number}


class SameKey(Numbers):
    """Two files, one key."""

    def row(self, number: int) -> Any:
        return RawRow.of(RowFile(f"file {number}"), 1, {"x": number})


class Text(Numbers):
    """The text that it is told to give."""

    text: str = Field("", description="The text, a byte a character.")

    def row(self, number: int) -> Any:
        return RawRow(TABLE, number, self.text.encode("latin-1"))


class Str(Numbers):
    """A text instead of bytes."""

    def row(self, number: int) -> Any:
        return RawRow(TABLE, number, '{"x": 1}')  # type: ignore[arg-type]


class Offsets(Numbers):
    """Lines of a file, with offsets that are right, or not."""

    path: str = Field(description="The file.")
    wrong_by: int = Field(0, description="How far from where they are.")

    def read(self) -> Iterator[Any]:
        path, offset = Path(self.path), 0
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
            yield RawRow(RowFile(self.path, path=path), number, line.rstrip(b"\r\n"), offset + self.wrong_by)
            offset += len(line)


class NoPath(Numbers):
    """Offsets of no file."""

    def row(self, number: int) -> Any:
        return RawRow.of(TABLE, number, {})._replace(offset=0)


class Nameless(Numbers):
    """Called nothing."""

    def place(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Held(), "holds all rows in memory"),
        (HeldIterator(), "holds all rows in memory"),
        (Empty(), "gives no rows"),
        (Fickle(), "gives another row 1 when it is read again"),
        (Shuffled(), "gives another row 1 when it is read again"),
        (Shorter(), "gives another row 4 when it is read again"),
        (Cursor(), "gives another row 2 when it is read again, or twice at the same time"),
        (Repeated(), r"gives two rows the place a table row 2"),
        (Zero(), "the number 0; rows are counted from 1"),
        (Mapping(), r"gives a dict; a row is a RawRow \(`RawRow.of`"),
        (SameKey(), r"calls two files '' \(file 1, file 2\)"),
        (Text(text='{"x":\n1}'), "a table row 1 a text with a line end"),
        (Text(text='{"x": NaN}'), "a text that is not JSON: holds NaN"),
        (Text(text='{"x": 1, "x": 2}'), "holds the key 'x' twice"),
        (Text(text="[1]"), "a JSON array, not an object"),
        (Text(text='{"x": "\xff"}'), "a text that is not JSON: .*utf-8"),
        (Str(), "a text of str; it is UTF-8 bytes"),
        (NoPath(), "only one of `RawRow.offset` and `RowFile.path`"),
        (Nameless(), "has an empty `place`"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Dataset) else "",
)
def test_what_is_broken_is_named(plugin: Dataset, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        check_plugin(plugin)
    assert f"{type(plugin).__qualname__} (dataset)" in str(caught.value)


def test_an_offset_is_where_the_text_is(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\r\n{"a": 2}\n{"a": 3}')
    check_plugin(Offsets(path=str(path)))
    with pytest.raises(PluginError, match="the offset 1, where b'\"a\": 1}' is, not its text"):
        check_plugin(Offsets(path=str(path), wrong_by=1))


def test_what_keeps_its_contract_passes(tmp_path: Path) -> None:
    check_plugin(Numbers())
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}\r\n')
    check_plugin(FilesDataset(path=str(path)))


def test_what_cannot_be_read_comes_through(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check_plugin(FilesDataset(path=str(tmp_path / "absent.jsonl")))
