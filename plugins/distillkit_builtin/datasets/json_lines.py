"""Files of JSON lines: one object a line, which can be read again where it stands."""

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from distillkit import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow, too_long


def read_json_lines(of: RowFile) -> Iterator[RawRow | UnreadableRow]:
    """The rows of the file at `of.path`; blank lines are none."""
    if of.path is None:
        raise AssertionError("lines are read from a file")
    offset = 0
    with of.path.open("rb") as file:
        for number, (text, length) in enumerate(_lines(file), start=1):
            mark = len(codecs.BOM_UTF8) if number == 1 and text.startswith(codecs.BOM_UTF8) else 0
            if _is_cut(text):
                yield UnreadableRow(of, number, too_long(of))
            elif text[mark:].strip():
                yield RawRow(of, number, text[mark:].rstrip(b"\r\n"), offset + mark)
            offset += length


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, of one that is too long only the start, and its whole length."""
    while text := file.readline(MAX_ROW_BYTES + 1):
        part, length = text, len(text)
        while _is_cut(part):
            part = file.readline(MAX_ROW_BYTES + 1)
            length += len(part)
        yield text, length


def _is_cut(text: bytes) -> bool:
    """Whether the line goes on behind what was read of it."""
    return len(text) > MAX_ROW_BYTES and not text.endswith(b"\n")
