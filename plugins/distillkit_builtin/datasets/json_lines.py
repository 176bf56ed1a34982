"""JSON lines: each line is a row, found by its end and read by the engine."""

from collections.abc import Iterator
from typing import BinaryIO

from distillkit import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow, too_long
from distillkit_builtin.datasets.file_kind import MARK

READ = MAX_ROW_BYTES + len(b"\r\n")
"""Bytes that are read of a line."""


def read_json_lines(file: RowFile, stream: BinaryIO) -> Iterator[RawRow | UnreadableRow]:
    """Every line that is not blank. Rows have offsets where `file` has a path: there nothing has to be copied."""
    offset = 0
    placed = file.path is not None
    for number, (line, length) in enumerate(_lines(stream), start=1):
        start, cut = offset, length > len(line)
        offset += length
        if number == 1 and line.startswith(MARK):
            line, start = line[len(MARK) :], start + len(MARK)
        text = line.rstrip(b"\r\n")
        if cut or len(text) > MAX_ROW_BYTES:
            yield UnreadableRow(file, number, too_long(file))
        elif text and not text.isspace():
            yield RawRow(file, number, text, start if placed else None)


def _is_cut(line: bytes) -> bool:
    """Whether a line goes on behind what was read of it."""
    return len(line) == READ and not line.endswith(b"\n")


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, of one that is too long only the start, and its whole length."""
    while line := stream.readline(READ):
        part, length = line, len(line)
        while _is_cut(part):
            part = stream.readline(READ)
            length += len(part)
        yield line, length
