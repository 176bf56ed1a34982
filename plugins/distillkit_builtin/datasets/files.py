"""Rows in files: JSON lines, JSON arrays, CSV, TSV, Parquet."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from distillkit import DataError, Dataset, RawRow, RowFile, UnreadableRow
from distillkit_builtin.datasets.delimited import read_delimited
from distillkit_builtin.datasets.file_kind import json_layout
from distillkit_builtin.datasets.found_files import FoundFile, FoundFiles, find_files
from distillkit_builtin.datasets.json_lines import read_json_lines
from distillkit_builtin.datasets.json_values import read_json_values
from distillkit_builtin.datasets.parquet import left_out, read_parquet
from distillkit_builtin.datasets.settled_format import settled_content
from distillkit_builtin.datasets.text_stream import text_stream

TABLES = ("CSV", "TSV")
SHOWN = 3
"""Names of files that a note gives."""
SPLIT = re.compile(r"(?<![a-z])(train|test|validation|valid|val|dev|eval|heldout)(?![a-z])")
"""What is part of a file's name where one folder holds a dataset's splits."""


class FilesDataset(Dataset):
    """Rows in files: JSON lines, JSON arrays, CSV, TSV and Parquet, texts also as .gz and .zst.

    A suffix says what each holds: .jsonl, .ndjson, .json, .csv, .tsv, .parquet, and .gz or .zst behind those of texts.
    Parquet and .zst need `pip install 'distillkit[data]'`.
    """

    name: ClassVar[str] = "files"

    path: str | tuple[str, ...] = Field(
        examples=["data/train.jsonl"],
        description="A file, a folder with all that is below it, or a glob; or several of them, read one after "
        "another.",
    )
    delimiter: str | None = Field(
        None,
        min_length=1,
        max_length=1,
        description="What separates the cells of CSV and TSV files; null: a comma, or a tab in .tsv.",
    )

    @field_validator("path")
    @classmethod
    def _some(cls, path: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not path or (not isinstance(path, str) and "" in path):
            raise ValueError("is empty; give a file, a folder or a glob")
        return path

    @field_validator("delimiter")
    @classmethod
    def _separates(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and delimiter in '"\r\n ':
            raise ValueError('cannot be a double quote, a blank or a line end; the usual ones: "," ";" "|" "\\t"')
        return delimiter

    def place(self) -> str:
        """The paths."""
        return ", ".join(self._paths())

    def read(self) -> Iterator[RawRow | UnreadableRow]:
        """Every row, one file after another. Raises DataError for what cannot be read, or is of no format that can."""
        found = find_files(self._paths())
        if self.delimiter is not None and not any(file.format.content in TABLES for file in found.files):
            raise DataError(f"{self.place()}: no file is CSV or TSV, so `delimiter` does nothing; take the option out")
        for file, key in zip(found.files, found.row_keys(), strict=True):
            yield from self._rows_of(file, key)

    def notes(self) -> Sequence[str]:
        """Files of a folder that are not read, files without content, columns that are left out."""
        found = find_files(self._paths())
        several = len(found.files) > 1
        each = [(file.path, note) for file in found.files for note in _of_file(file)]
        named = [str(file.path) for file in found.files] == [*self._paths()]  # which is what `place` says
        return [*_of_files(found, named=named), *(f"{path}: {note}" if several else note for path, note in each)]

    def _paths(self) -> Sequence[str]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def _rows_of(self, file: FoundFile, key: str) -> Iterator[RawRow | UnreadableRow]:
        path, name = file.path, str(file.path)
        content, head = settled_content(file)
        if content == "Parquet":
            yield from read_parquet(RowFile(name, key), path)
            return
        with text_stream(path, file.format.packing) as stream:
            if content in TABLES:
                delimiter = self.delimiter or ("," if content == "CSV" else "\t")
                chosen = self.delimiter is not None
                yield from read_delimited(RowFile(name, key, "line"), stream, delimiter, chosen=chosen)
            elif (layout := json_layout(head)) == "lines":
                again = path if file.format.packing is None else None
                yield from read_json_lines(RowFile(name, key, "line", again), stream)
            else:
                yield from read_json_values(RowFile(name, key), stream, layout)


def _of_files(found: FoundFiles, *, named: bool) -> Iterator[str]:
    if len(found.files) > 1 and not named:
        yield f"{len(found.files)} files, {_names([file.path for file in found.files])}"
    splits = sorted({word for key in found.row_keys() for word in SPLIT.findall(key.lower())})
    if len(splits) > 1:
        yield f"files of several splits are read together, as {' and '.join(splits)} in their names say"
    if found.skipped:
        yield f"not read, since the suffix is not known: {_names(found.skipped)}"


def _of_file(file: FoundFile) -> Iterator[str]:
    if not file.path.stat().st_size:
        yield "is empty"
    elif file.format.content == "Parquet" and (columns := left_out(file.path)):
        yield f"left out, since such values have no form in JSON: {', '.join(columns)}"


def _names(paths: Sequence[Path]) -> str:
    shown = [str(path) for path in paths[:SHOWN]]
    return ", ".join(shown) + (f" and {len(paths) - SHOWN:,} more" if len(paths) > SHOWN else "")
