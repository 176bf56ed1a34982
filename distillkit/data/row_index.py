"""Where each row of a dataset is, and a hash of what it holds: about 20 bytes a row, so a million rows are cheap."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from distillkit.data.kept_texts import KeptTexts
from distillkit.data.problems import Problems
from distillkit.errors import DataError, PluginError
from distillkit.raw_row import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow, too_long
from distillkit.roles.dataset import Dataset

DIGEST = 5
"""Bytes of a row's hash: of a million rows that change, one would be missed in a million runs."""
OPEN_FILES = 16
"""At once: a folder may hold more than a process may open."""


class RowIndex:
    """The rows of a dataset by position, in the order in which it gives them; read lazily."""

    def __init__(self, dataset: Dataset, max_rows: int | None = None) -> None:
        """Read all rows once, or the first `max_rows`. Raises DataError for a source that is empty, or unreadable."""
        self.place = dataset.place()
        self.unreadable = Problems()
        """The rows that the source cannot give, which have no position."""
        self._files: list[RowFile] = []
        self._kept = KeptTexts()
        self._content = hashlib.sha256()
        self._file_of, self._numbers, self._offsets = array("I"), array("I"), array("Q")
        self._digests = bytearray()
        if max_rows != 0:
            self._read_all(dataset, max_rows)
        if not self._numbers and not self.unreadable.count:
            raise DataError(f"{self.place}: holds no rows")

    def _read_all(self, dataset: Dataset, max_rows: int | None) -> None:
        numbers: dict[RowFile, int] = {}
        last: RowFile | None = None
        for raw in dataset.read():
            if isinstance(raw, UnreadableRow):
                self.unreadable.add(raw.file.place(raw.number), raw.problem)
                continue
            if len(raw.text) > MAX_ROW_BYTES:
                self.unreadable.add(raw.place, too_long(raw.file))
                continue
            if raw.file is not last:  # as nearly never: files are read one after another
                last = raw.file
                _require_offsets(dataset, raw)
                if last not in numbers:
                    numbers[last] = len(self._files)
                    self._files.append(last)
            self._add(raw, numbers[raw.file])
            if len(self._numbers) == max_rows:
                return

    def _add(self, raw: RawRow, file: int) -> None:
        content = hash_of(raw.text)
        self._file_of.append(file)
        self._numbers.append(raw.number)
        self._offsets.append(self._kept.append(raw.text) if raw.offset is None else raw.offset)
        self._digests += content[:DIGEST]
        self._content.update(b"%d %s" % (raw.number, content))

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._numbers)

    @property
    def digest(self) -> str:
        """A hash of all rows: their content, numbers and order, not where the source is."""
        names = "\0".join(file.key for file in self._files)
        return hashlib.sha256(names.encode() + self._content.digest()).hexdigest()[:16]

    def id_of(self, position: int) -> str:
        """The row's number in its file and a hash of its content, where there are several files the file too."""
        return row_id(self._files[self._file_of[position]], self._numbers[position], self._digest(position))

    def place_of(self, position: int) -> str:
        """Where a row is, for messages."""
        return self._files[self._file_of[position]].place(self._numbers[position])

    def read(self, positions: Iterable[int]) -> Iterator[tuple[int, RawRow]]:
        """The rows at these positions, in this order. Raises DataError for one that is not what it was."""
        opened: dict[Path | None, tuple[BinaryIO, int]] = {}
        try:
            for position in positions:
                file, offset = self._files[self._file_of[position]], self._offsets[position]
                if file.path not in opened and len(opened) == OPEN_FILES:
                    opened.pop(next(iter(opened)))[0].close()
                reader, here = opened.get(file.path) or (self._open(file.path), 0)
                opened[file.path] = reader, here  # so that it is closed, whatever comes
                if offset != here:
                    reader.seek(offset)
                text = reader.readline(MAX_ROW_BYTES + 1)
                opened[file.path] = reader, offset + len(text)
                yield position, self._unchanged(position, file, text, offset)
        except OSError as error:
            raise DataError(f"{error.filename or self.place}: can no longer be read: {error.strerror}") from error
        finally:
            for reader, _ in opened.values():
                reader.close()

    def _open(self, path: Path | None) -> BinaryIO:
        return self._kept.open() if path is None else path.open("rb")

    def _unchanged(self, position: int, file: RowFile, text: bytes, offset: int) -> RawRow:
        if hash_of(text)[:DIGEST] != self._digest(position):
            raise DataError(
                f"{self.place_of(position)}: the file changed during the run; a run is a function of its data, so put "
                "the file back and go on by --resume, or start anew"
            )
        return RawRow(file, self._numbers[position], text, offset)

    def _digest(self, position: int) -> bytes:
        return bytes(self._digests[position * DIGEST : (position + 1) * DIGEST])


def hash_of(text: bytes) -> bytes:
    """A hash of what a row holds."""
    return hashlib.sha256(text.strip()).digest()


def row_id(file: RowFile, number: int, digest: bytes) -> str:
    """What a row is called by its place and content, the first bytes of its hash."""
    return f"{f'{file.key}:' if file.key else ''}{number}-{digest[:DIGEST].hex()}"


def _require_offsets(dataset: Dataset, raw: RawRow) -> None:
    if (raw.offset is None) != (raw.file.path is None):
        raise PluginError(
            f"dataset {dataset.name!r} ({type(dataset).__name__}) gives {raw.place} "
            f"{'no offset and its file a path' if raw.offset is None else 'an offset and its file no path'}; both say "
            "where its text can be read again, or neither"
        )
