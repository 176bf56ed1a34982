"""CSV and TSV: the first row names the columns, and every cell is text."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pydantic_core import to_json  # takes less than half of the time of the standard library's

from distillkit import MAX_ROW_BYTES, DataError, RawRow, RowError, RowFile, UnreadableRow
from distillkit.files.strict_json import shortened
from distillkit_builtin.datasets.file_kind import MARK

OTHERS = (";", "\t", "|", ",")
"""What separates cells elsewhere, such as where a comma stands in numbers."""


def read_delimited(
    file: RowFile, stream: BinaryIO, delimiter: str, *, chosen: bool
) -> Iterator[RawRow | UnreadableRow]:
    """Each row behind the header, by the line where it begins; blank lines are none.

    Args:
        file: What the rows are of.
        stream: The text.
        delimiter: What separates cells.
        chosen: Whether the user named it; else a header of one cell that another one would split is refused.

    Raises:
        DataError: for a header that does not name its columns, and for a row that does not end.
    """
    csv.field_size_limit(
        max(csv.field_size_limit(), MAX_ROW_BYTES)
    )  # of this process; `_Lines` keeps the limit of a row
    lines = _Lines(file, stream)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = lines.begin_row()
        try:
            cells = next(rows)
            if header is None:
                header = _header(file, cells, None if chosen else delimiter) if cells else None
            elif cells:
                yield _row(file, number, header, cells, delimiter)
        except StopIteration:
            return
        except (csv.Error, RowError) as error:
            problem = error if isinstance(error, RowError) else RowError("row", _reason(error))
            if header is None:
                raise DataError(f"{file.place(number)}: {problem}") from error
            yield UnreadableRow(file, number, problem)


def _reason(error: csv.Error) -> str:
    if "new-line character" in str(error):
        return "has a carriage return alone, outside of quotes; save the file with line ends \\n or \\r\\n"
    return f"is not CSV: {error}"


def _row(file: RowFile, number: int, header: Sequence[str], cells: Sequence[str], delimiter: str) -> RawRow:
    if len(cells) != len(header):
        raise RowError(
            "row",
            f"has {len(cells)} cells, the header has {len(header)}; a cell that holds {delimiter!r}, a quote or a line "
            'end stands in double quotes, and a quote in it is doubled ("")',
        )
    return RawRow(file, number, to_json(dict(zip(header, cells, strict=True))))


def _header(file: RowFile, names: list[str], delimiter: str | None) -> list[str]:
    """The names of the columns. Raises DataError where they are no names."""
    where = f"{file.name}: the header"
    for other in OTHERS if len(names) == 1 and delimiter is not None else ():
        if other != delimiter and len(parts := names[0].split(other)) > 1 and all(part.strip() for part in parts):
            source = f"source: {{name: files, path: {file.name}, delimiter: {json.dumps(other)}}}"
            raise DataError(
                f"{where} is one column, {shortened(repr(names[0]), 200)}, if {delimiter!r} separates; it seems to be "
                f"{other!r}: write `{source}` below `data:` in place of `path`",
                {"delimiter": other},
            )
    if "" in (stripped := [name.strip() for name in names]):
        raise DataError(
            f"{where} has no name for column {stripped.index('') + 1}; the first row names every column (pandas leaves "
            "out the name of its index: write by to_csv(..., index=False))"
        )
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{where} has two columns {shortened(repr(twice), 60)}; which one is meant is not said")
    return names


class _Lines:
    """The lines of a text, decoded; counts them, and the bytes of the row that they are of."""

    def __init__(self, file: RowFile, stream: BinaryIO) -> None:
        self._file = file
        self._stream = stream
        self._line = 0
        self._first = 1
        self._size = 0

    def begin_row(self) -> int:
        """The number of the line where the next row begins."""
        self._first, self._size = self._line + 1, 0
        return self._first

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self._line += 1
        self._size += len(line)
        if self._size > MAX_ROW_BYTES:
            raise DataError(
                f"{self._file.place(self._first)}: the row that begins here is longer than {MAX_ROW_BYTES // 2**20} "
                "MiB, or a quote in it is never closed"
            )
        if self._line == 1:
            line = line.removeprefix(MARK)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError(
                "row",
                f"is not UTF-8: byte {error.start} of line {self._line} is 0x{line[error.start]:02x}; save the file as "
                "UTF-8 (a spreadsheet calls it CSV UTF-8)",
            ) from error
