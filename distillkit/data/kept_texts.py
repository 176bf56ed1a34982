"""The texts of rows in a temporary file: of sources that cannot go back to a row without reading all before it."""

import io
import os
import tempfile
import weakref
from contextlib import suppress
from typing import IO, BinaryIO, cast

from distillkit.errors import DataError

BUFFER = 2**16
"""Bytes of rows' texts that are written and read at once: many rows in their order, and not much more where one is read
by itself."""


class KeptTexts:
    """Lines in a file without a name, which the operating system removes with this process, however that ends."""

    def __init__(self) -> None:
        """Nothing yet: the file is made with the first line."""
        self._file: BinaryIO | None = None
        self._length = 0

    def append(self, text: bytes) -> int:
        """Keep a line; returns where it starts. Raises DataError if it does not fit on the disk."""
        start = self._length
        try:
            if self._file is None:
                file = tempfile.TemporaryFile(buffering=BUFFER, prefix="distillkit-rows-")  # noqa: SIM115 - open as long as this object
                weakref.finalize(self, _close, file)
                self._file = cast(BinaryIO, file)
            self._file.write(text)
            self._file.write(b"\n")
        except OSError as error:
            raise _no_room(error) from error
        self._length += len(text) + 1
        return start

    def open(self) -> BinaryIO:
        """All lines, to be read from any place, at the same time as others read. Raises DataError as `append` does."""
        if self._file is None:
            raise AssertionError("no text was kept")
        try:
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        return cast(BinaryIO, io.BufferedReader(_Reading(self._file.fileno()), BUFFER))


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # of a full disk, which was said
        file.close()


def _no_room(error: OSError) -> DataError:
    return DataError(
        f"the rows cannot be kept in {tempfile.gettempdir()}: {error.strerror}. A source that is compressed, a "
        "table or an array is written there as JSON lines; free some space, or set TMPDIR to another folder"
    )


class _Reading(io.RawIOBase):
    """One reader of a file, with a position of its own."""

    def __init__(self, fileno: int) -> None:
        """From the beginning."""
        self._fileno, self._at = fileno, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the start."""
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            offset += os.fstat(self._fileno).st_size
        self._at = offset
        return offset

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer
        """Read on."""
        data = os.pread(self._fileno, len(buffer), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
