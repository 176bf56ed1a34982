"""Where each row of a dataset is, and a hash of what it holds: 21 bytes a row, so a million rows are cheap."""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distillkit.arrays import IntArray
from distillkit.data.given_rows import given_rows
from distillkit.data.kept_texts import BUFFER, KeptTexts
from distillkit.data.problems import Problems
from distillkit.data.row_selection import RowSelection
from distillkit.errors import DataError, PluginError, RowError
from distillkit.raw_row import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow, too_long
from distillkit.roles.dataset import Dataset

DIGEST = 5
"""Bytes of a row's hash: of a million rows that change, one would be missed in a million runs."""
OPEN_FILES = 16
"""At once: a folder may hold more than a process may open."""


class RowIndex:
    """The rows of a dataset by position, in the order in which it gives them; read lazily."""

    def __init__(self, dataset: Dataset, max_rows: int | None = None, selection: RowSelection | None = None) -> None:
        """Read all rows once, or until there are `max_rows` that `selection` takes.

        Raises DataError for a source that is empty, or unreadable, and where nothing is taken.
        """
        self.place = dataset.place()
        self.unreadable = Problems()
        """The rows that the source cannot give, or that cannot be chosen from; they have no position."""
        self.read_count = 0
        """The rows that were read, with those that are not taken."""
        self._files: list[RowFile] = []
        self._kept = KeptTexts()
        self._content = hashlib.sha256()
        self._file_of, self._numbers, self._offsets = array("I"), array("I"), array("Q")
        self._digests = bytearray()
        self._read_all(dataset, max_rows, selection)
        self._require_places(dataset)
        if not self._numbers and not self.unreadable.count:
            raise DataError(f"{self.place}: {selection.nothing() if selection else 'holds no rows'}")

    def _read_all(self, dataset: Dataset, max_rows: int | None, selection: RowSelection | None) -> None:
        numbers: dict[RowFile, int] = {}
        last, at = None, 0
        for raw in given_rows(dataset):
            self.read_count += 1
            if isinstance(raw, UnreadableRow):
                self.unreadable.add(raw.file.place(raw.number), raw.problem)
                continue
            if len(raw.text) > MAX_ROW_BYTES:
                self.unreadable.add(raw.place, too_long(raw.file))
                continue
            if raw.file is not last:  # as nearly never: files are read one after another
                last = raw.file
                _require_offsets(dataset, raw)
                at = numbers.setdefault(last, len(numbers))
                self._files += [last] if at == len(self._files) else []
                self._content.update(b"in %d " % at)
            try:
                if selection is not None and not selection.takes(raw):
                    continue
            except RowError as error:
                self.unreadable.add(raw.place, error)
                continue
            self._add(raw, at)
            if len(self._numbers) == max_rows:
                return

    def _require_places(self, dataset: Dataset) -> None:
        """Raise PluginError for two rows of one place: they would have one id, and so the same completions."""
        places = np.array(self._file_of, dtype=np.uint64)  # changed in place: of millions of rows each copy is large
        places <<= np.uint64(32)
        places |= np.asarray(self._numbers)
        places.sort()
        twice = np.flatnonzero(places[1:] == places[:-1])
        keys = [file.key for file in self._files]
        wrong = ""
        if len(twice):
            file, number = divmod(int(places[twice[0]]), 2**32)
            wrong = f"two rows the place {self._files[file].place(number)}; a row's number is unique in its file"
        elif len(set(keys)) < len(keys):
            again = next(key for key in keys if keys.count(key) > 1)
            wrong = f"two files the key {again!r}; `RowFile.key` is part of a row's id, so each file has its own"
        if wrong:
            raise PluginError(f"dataset {dataset.name!r} ({type(dataset).__name__}) gives {wrong}")

    def _add(self, raw: RawRow, file: int) -> None:
        _, number, text, offset = raw
        content = hash_of(text)
        self._file_of.append(file)
        self._numbers.append(number)
        self._offsets.append(self._kept.append(text) if offset is None else offset)
        self._digests += content[:DIGEST]
        self._content.update(b"%d %s" % (number, content))

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._numbers)

    @property
    def digest(self) -> str:
        """A hash of all rows: their content, numbers and order, not where the source is."""
        names = "\0".join(file.key for file in self._files)
        return hashlib.sha256(names.encode() + self._content.digest()).hexdigest()[:16]

    @property
    def content_hashes(self) -> IntArray:
        """[N] the first 40 bits of the hash of each row's content."""
        digits = np.frombuffer(self._digests, np.uint8).reshape(-1, DIGEST)
        wide = np.zeros((len(digits), 8), np.uint8)
        wide[:, -DIGEST:] = digits
        return wide.view(">i8").astype(np.int64)[:, 0]

    def id_of(self, position: int) -> str:
        """The row's number in its file and a hash of its content, where there are several files the file too."""
        return row_id(self._files[self._file_of[position]], self._numbers[position], self._digest(position))

    def place_of(self, position: int) -> str:
        """Where a row is, for messages."""
        return self._files[self._file_of[position]].place(self._numbers[position])

    def read(self, positions: Iterable[int], *, compare: bool = True) -> Iterator[tuple[int, RawRow]]:
        """The rows at these positions, in this order. Raises DataError for one that is not what it was.

        Where each is read once more later, as in checks, there is no need to `compare` it to what it was.
        """
        readers: dict[int, BinaryIO] = {}
        here: dict[int, int] = {}
        try:
            for position in positions:
                at, offset = self._file_of[position], self._offsets[position]
                reader = readers.get(at)
                if reader is None:
                    if len(readers) == OPEN_FILES:
                        readers.pop(next(iter(readers))).close()
                    reader = readers[at] = self._open(self._files[at].path)
                    here[at] = 0
                if offset != here[at]:
                    reader.seek(offset)
                text = reader.readline(MAX_ROW_BYTES + 2)
                here[at] = offset + len(text)
                if compare and hash_of(text)[:DIGEST] != self._digests[position * DIGEST : (position + 1) * DIGEST]:
                    raise self._changed(position)
                yield position, RawRow(self._files[at], self._numbers[position], text, offset)
        except OSError as error:
            raise DataError(f"{error.filename or self.place}: can no longer be read: {error.strerror}") from error
        finally:
            for opened in readers.values():
                opened.close()

    def _open(self, path: Path | None) -> BinaryIO:
        return self._kept.open() if path is None else path.open("rb", buffering=BUFFER)

    def _changed(self, position: int) -> DataError:
        return DataError(
            f"{self.place_of(position)}: the file changed during the run; a run is a function of its data, so put the "
            "file back and go on by --resume, or start anew"
        )

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
