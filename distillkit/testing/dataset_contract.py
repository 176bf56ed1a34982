"""What a dataset owes the engine: the same rows at every reading, each of which can be found again."""

import hashlib
import json
from collections.abc import Iterator
from itertools import zip_longest

from distillkit.data.given_rows import fault_of
from distillkit.files.strict_json import ContentError, json_type, parse_json, shortened
from distillkit.raw_row import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow
from distillkit.roles.dataset import Dataset
from distillkit.testing.builders import require
from distillkit.testing.held_to import given, held_to

GivenRow = RawRow | UnreadableRow
COLLECTIONS: tuple[type, ...] = (type(iter([])), type(iter(())), type(iter({}.values())))
"""What iterates over rows that are all there already."""


def check_dataset(dataset: Dataset) -> None:
    """Read all rows, then twice more at the same time. Raises PluginError for what the engine cannot work with."""
    with held_to(dataset, "place"):
        require(
            given(dataset, "place", dataset.place(), str).strip(),
            dataset,
            "has an empty `place`, which is what messages call it",
        )
    before = []
    files: dict[str, RowFile] = {}
    places = set()
    for row in _rows(dataset):
        _check_place(dataset, row, files)
        place, shown = (row.file.key, row.number), row.file.place(row.number)
        require(place not in places, dataset, f"gives two rows the place {shown}; a number is unique in its file")
        places.add(place)
        if isinstance(row, RawRow):
            _check_text(dataset, row, shown)
            _check_offset(dataset, row, shown)
        before.append(_identity(row))
    require(before, dataset, "gives no rows; test it with some (where there are none, a DataError says why)")
    with held_to(dataset, "notes"):
        notes = dataset.notes()
        texts = not isinstance(notes, str) and all(isinstance(note, str) for note in notes)
        require(texts, dataset, "has `notes` that are no texts")
    for number, (first, second, known) in enumerate(zip_longest(_rows(dataset), _rows(dataset), before), start=1):
        same = first is not None and second is not None and _identity(first) == _identity(second) == known
        require(
            same,
            dataset,
            f"gives another row {number} when it is read again, or twice at the same time; each `read` begins anew, "
            "shares nothing with another, and gives the same rows in the same order",
        )


def _rows(dataset: Dataset) -> Iterator[GivenRow]:
    rows = dataset.read()
    lazy = isinstance(rows, Iterator) and not isinstance(rows, COLLECTIONS)
    require(lazy, dataset, f"holds all rows in memory ({type(rows).__name__}); let `read` yield one after another")
    return rows


def _identity(row: GivenRow) -> tuple[RowFile, int, bytes]:
    """What must be the same at every reading, in little memory."""
    content = row.text if isinstance(row, RawRow) else str(row.problem).encode(errors="replace")
    return row.file, row.number, hashlib.sha256(content).digest()[:16]


def _check_place(dataset: Dataset, row: GivenRow, files: dict[str, RowFile]) -> None:
    fault = fault_of(row)
    require(not fault, dataset, fault)
    known = files.setdefault(row.file.key, row.file)
    require(
        known == row.file,
        dataset,
        f"calls two files {row.file.key!r} ({known.name}, {row.file.name}); `RowFile.key` is part of a row's id, so "
        "each has its own",
    )


def _check_text(dataset: Dataset, row: RawRow, shown: str) -> None:
    """It is one line that holds one JSON object, as strictly as the engine reads it."""
    require(
        len(row.text) <= MAX_ROW_BYTES, dataset, f"gives {shown} {len(row.text)} bytes of text, beyond {MAX_ROW_BYTES}"
    )
    require(not {10, 13} & set(row.text), dataset, f"gives {shown} a text with a line end in it; write it on one line")
    try:
        value = parse_json(row.text.decode())
    except (UnicodeDecodeError, json.JSONDecodeError, ContentError) as error:
        said = shortened(str(error), 200)
        require(False, dataset, f"gives {shown} a text that is not JSON: {said}; `RawRow.of` writes it")
        return
    require(isinstance(value, dict), dataset, f"gives {shown} a JSON {json_type(value)}, not an object")


def _check_offset(dataset: Dataset, row: RawRow, shown: str) -> None:
    """Where it says that its text is, it is."""
    both = (row.offset is None) == (row.file.path is None)
    require(both, dataset, f"gives {shown} only one of `RawRow.offset` and `RowFile.path`; both, or neither")
    if row.offset is None or row.file.path is None:
        return
    with row.file.path.open("rb") as file:
        file.seek(row.offset)
        found = file.readline(MAX_ROW_BYTES + 2).rstrip(b"\r\n")
    require(found == row.text, dataset, f"gives {shown} the offset {row.offset}, where {found[:60]!r} is, not its text")
