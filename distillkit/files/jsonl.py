"""Files of JSON lines that a run appends to: each write is there whole or not at all."""

import errno
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISREG
from typing import Any, Self

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit.files.os_errors import advice

log = logging.getLogger("distillkit")
LINE_ENDS = "\u0085\u2028\u2029"
"""Next line, line separator, paragraph separator: JSON escapes no others that `str.splitlines` knows."""
LONGEST_LINE = 1 << 26
"""Bytes of a line that are read: no run writes one so long, and whoever did may not fill the memory."""


class JsonLines:
    """One file, unbuffered, so that nothing is left over to be written after a write has failed."""

    def __init__(self, path: Path) -> None:
        """Append to `path`, which is made if need be."""
        self.path = path
        with explain_write_errors(path):
            self._file = path.open("ab", buffering=0)

    def append(self, records: Iterable[Mapping[str, JsonValue]], *, ascii_only: bool = True) -> None:
        """Write one line a record. Raises RunFailedError if the disk is full; then the file is as it was."""
        self.write(json_lines(records, ascii_only=ascii_only))

    def write(self, lines: bytes) -> None:
        """Append what `json_lines` made. Raises as `append`."""
        data = memoryview(lines)
        with explain_write_errors(self.path):
            before = os.fstat(self._file.fileno()).st_size
            try:
                while data:
                    data = data[self._file.write(data) or 0 :]
            except OSError:
                self._file.truncate(before)
                raise

    def length(self) -> int:
        """Bytes of the file so far."""
        return os.fstat(self._file.fileno()).st_size

    def flush(self) -> None:
        """Return once all that was written is on the disk. Raises RunFailedError if it cannot be."""
        with explain_write_errors(self.path):
            os.fsync(self._file.fileno())

    def cut(self, length: int) -> None:
        """Truncate to a length that it had; one that is shorter by now has lost lines, which the log says."""
        found = self.length()
        if found < length:
            log.warning("%s is %d bytes shorter than at the checkpoint: lines are missing", self.path, length - found)
            return
        self._file.truncate(length)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return this object."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self.close()


def json_lines(records: Iterable[Mapping[str, JsonValue]], *, ascii_only: bool = True) -> bytes:
    """One line a record, as a file holds them."""
    lines = [_one_line(json.dumps(record, allow_nan=False, ensure_ascii=ascii_only)) for record in records]
    # A lone surrogate, which JSON can hold and UTF-8 cannot, is written as the escape that it came as.
    return "".join(lines).encode("utf-8", errors="backslashreplace")


def read_json_lines(path: Path) -> Iterator[Any]:
    """What each line holds, in order; None for a line that is no JSON, as one that was cut off. Raises OSError."""
    for _, line in lines_from(path):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield None


def lines_from(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Each line of a file from the byte `start` on, with where it begins; of one that is too long only its beginning.

    Raises OSError, also for what is no regular file: a pipe or a device may have no end.
    """
    require_regular(path)
    with path.open("rb") as file:
        offset = file.seek(start)
        while line := file.readline(LONGEST_LINE):
            yield offset, line
            offset += len(line)
            while len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
                offset += len(line)


def require_regular(path: Path) -> None:
    """Raise OSError unless a file is there that has an end."""
    if not S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def _one_line(text: str) -> str:
    """A line with its end; characters that many readers take for the end of a line are written escaped."""
    for character in LINE_ENDS:
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a failed write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        how = advice(error)
        raise RunFailedError(
            f"{path} cannot be written: {error.strerror or error}. {how[0].upper()}{how[1:]}, and go on by --resume"
        ) from error
