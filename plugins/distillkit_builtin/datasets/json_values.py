"""JSON whose rows are no lines: an array of any layout, or objects over several lines, one behind another.

Rows are cut out of the text by their brackets and strings alone, and the engine parses each as it parses a line: what
is refused there is refused here (a key that stands twice, NaN, half of a character), with the row's number, and the
others go on. A parser of streams (ijson) or `JSONDecoder.raw_decode` would make values first, of another strictness,
that would then have to be written as text again; and neither can go on behind a row that is wrong.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from distillkit import MAX_ROW_BYTES, DataError, RawRow, RowFile
from distillkit_builtin.datasets.file_kind import MARK

CHUNK = 2**18
"""Bytes that are read at once."""
BLANK = re.compile(rb"[ \t\r\n]*+")
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
BRACKET = re.compile(rb'(?:[^"{}\[\]]++|' + STRING + rb")*+([{}\[\]])", re.DOTALL)
"""Up to the next bracket that stands in no string."""
SCALAR = re.compile(STRING + rb'|[^\s,"{}\[\]]++', re.DOTALL)
ONE_LINE = bytes.maketrans(b"\r\n", b"\t\t")
"""A tab is a blank between values as a line end is, and as little allowed in a string: nothing becomes JSON by it."""


def read_json_values(file: RowFile, stream: BinaryIO, layout: Literal["array", "objects"]) -> Iterator[RawRow]:
    """Each element of the array, or each object. Raises DataError where the text ends too early or goes on too long."""
    text = _Text(file, stream)
    values = _elements(text) if layout == "array" else _objects(text)
    for number, value in enumerate(values, start=1):
        yield RawRow(file, number, value.translate(ONE_LINE) if b"\n" in value or b"\r" in value else value)


def _objects(text: "_Text") -> Iterator[bytes]:
    while text.next_byte():
        yield text.value()


def _elements(text: "_Text") -> Iterator[bytes]:
    text.take()  # the array's bracket
    if text.next_byte() == b"]":
        text.take()
    else:
        separator = b","
        while separator == b",":
            yield text.value()
            separator = text.next_byte()
            if separator not in (b",", b"]"):
                shown = separator.decode(errors="replace")
                raise text.problem(f"has {shown} where a comma or the array's end should be" if separator else CUT)
            text.take()
    if text.next_byte():
        raise text.problem("goes on behind the array's end; keep one array, or one object a line")


TOO_LONG = f"has a row here that is longer than {MAX_ROW_BYTES // 2**20} MiB, or whose brackets or quotes do not end"
CUT = "ends inside of the array: it was cut off; fetch or write it again"


@dataclass(slots=True)
class _Text:
    """A text that is read forward, of which only what is not used up is held."""

    file: RowFile
    stream: BinaryIO
    buffer: bytes = b""
    here: int = 0
    lines: int = 1
    """The line at the buffer's start."""

    def __post_init__(self) -> None:
        """Go behind the byte order mark."""
        self._more()
        self.here = len(MARK) if self.buffer.startswith(MARK) else 0

    def _more(self) -> bool:
        """Read on, and forget what stands before `here`; False at the end."""
        chunk = self.stream.read(
            max(CHUNK, len(self.buffer) - self.here)
        )  # so a long row is not gone through too often
        self.lines += self.buffer.count(b"\n", 0, self.here)
        self.buffer = self.buffer[self.here :] + chunk
        self.here = 0
        return bool(chunk)

    def next_byte(self) -> bytes:
        """The next that is not blank, which stays; empty at the end."""
        while True:
            found = BLANK.match(self.buffer, self.here)
            self.here = found.end() if found else self.here
            if self.here < len(self.buffer):
                return self.buffer[self.here : self.here + 1]
            if not self._more():
                return b""

    def take(self) -> None:
        """Go behind the next byte."""
        self.next_byte()
        self.here += 1

    def value(self) -> bytes:
        """The text of the value that comes next, whatever it is: whoever parses it says what is wrong with it."""
        first = self.next_byte()
        end = self._bracketed_end() if first in (b"{", b"[") else self._scalar_end(first)
        if end - self.here > MAX_ROW_BYTES:
            raise self.problem(TOO_LONG)
        value = self.buffer[self.here : end]
        self.here = end
        return value

    def _bracketed_end(self) -> int:
        """Where the value ends that begins here with a bracket."""
        depth, place = 0, self.here
        while True:
            while found := BRACKET.match(self.buffer, place):
                place = found.end()
                depth += 1 if found[1] in (b"{", b"[") else -1
                if not depth:
                    return place
            place = self._hold_more(place)

    def _hold_more(self, place: int) -> int:
        """Read on in a value that has not ended; the new `place`."""
        place -= self.here
        if len(self.buffer) - self.here > MAX_ROW_BYTES:
            raise self.problem(TOO_LONG)
        if not self._more():
            raise self.problem("ends inside of a row: it was cut off, or brackets or quotes of the row do not end")
        return place

    def _scalar_end(self, first: bytes) -> int:
        """Where a string, a number or a word ends, which begins here; it is no row."""
        while True:
            found = SCALAR.match(self.buffer, self.here)
            if found and found.end() < len(self.buffer):
                return found.end()
            if not found and first != b'"':
                shown = first.decode(errors="replace")
                raise self.problem(f"has {shown} where a row should be; is there a comma too many?" if first else CUT)
            self._hold_more(self.here)

    def problem(self, what: str) -> DataError:
        """What is wrong with the file, and the line of it."""
        line = self.lines + self.buffer.count(b"\n", 0, self.here)
        return DataError(f"{self.file.name}:{line}: {what}")
