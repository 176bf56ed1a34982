"""JSON lines: each line is a row, found by its end and read by the engine."""

from collections.abc import Iterator
from typing import BinaryIO

from distillkit import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow, too_long
from distillkit_builtin.datasets.file_kind import MARK


def read_json_lines(file: RowFile, stream: BinaryIO) -> Iterator[RawRow | UnreadableRow]:
    """Every line that is not blank. Rows have offsets where `file` has a path: there nothing has to be copied."""
    offset = 0
    placed = file.path is not None
    for number, (line, length) in enumerate(_lines(stream), start=1):
        start = offset
        offset += length
        if number == 1 and line.startswith(MARK):
            line, start = line[len(MARK) :], start + len(MARK)
        if _is_cut(line):
            yield UnreadableRow(file, number, too_long(file))
        elif line and not line.isspace():
            yield RawRow(file, number, line.rstrip(b"\r\n"), start if placed else None)


def _is_cut(line: bytes) -> bool:
    """Whether a line that was read up to the limit goes on behind it."""
    return len(line) > MAX_ROW_BYTES and not line.endswith(b"\n")


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line, of one that is too long only the start, and its whole length."""
    while line := stream.readline(MAX_ROW_BYTES + 1):
        part, length = line, len(line)
        while _is_cut(part):
            part = stream.readline(MAX_ROW_BYTES + 1)
            length += len(part)
        yield line, length
