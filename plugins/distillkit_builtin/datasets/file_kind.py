"""What a file is by its first bytes, said once for a file that is not what its name says, instead of once a row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distillkit_builtin.datasets.file_format import Packing

HEAD = 4096
"""Bytes of a file that are looked at."""
MARK = b"\xef\xbb\xbf"
"""The byte order mark that a text may begin with, as Excel writes it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file is that holds no JSON and no table as text."""

    begins: re.Pattern[bytes]
    what: str
    """As `is compressed by gzip`."""
    fix: str
    """What to do."""


def _kind(begins: bytes, what: str, fix: str) -> Kind:
    return Kind(re.compile(begins, re.DOTALL), what, fix)


GZIP = _kind(rb"\x1f\x8b", "is compressed by gzip", "give it a name that ends with .gz")
ZSTD = _kind(
    rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", "is compressed by zstd", "give it a name that ends with .zst"
)
PARQUET = _kind(rb"PAR1[\x00-\x1f]", "is a Parquet file", "give it a name that ends with .parquet")
TO_PARQUET, SAVED = "write it as Parquet, by datasets (`Dataset.to_parquet`)", ", if `save_to_disk` wrote that"
EXPORT = "export it as CSV (UTF-8)"
KINDS = (
    GZIP,
    ZSTD,
    PARQUET,
    _kind(rb"BZh[1-9]1AY", "is compressed by bzip2", "unpack it by bunzip2 -k"),
    _kind(rb"\xfd7zXZ\0", "is compressed by xz", "unpack it by unxz -k"),
    _kind(rb"\x04\x22\x4d\x18", "is compressed by lz4", "unpack it by lz4 -d"),
    _kind(rb"PK\x03\x04.{0,4000}(xl/|opendocument\.spreadsheet)|\xd0\xcf\x11\xe0", "is a spreadsheet", EXPORT),
    _kind(rb"PK\x03\x04", "is a zip archive", "unpack it; if it is a spreadsheet, export it as CSV (UTF-8)"),
    _kind(rb".{257}ustar", "is a tar archive", "unpack it by tar -xf, and give the folder"),
    _kind(rb"ARROW1\0", "is an Arrow file", TO_PARQUET),
    _kind(rb"\xff\xff\xff\xff", "is an Arrow stream", f"give its folder{SAVED}, or {TO_PARQUET}"),
    _kind(rb"ORC\x0a", "is an ORC file", "write it as Parquet, by pyarrow"),
    _kind(rb"Obj\x01", "is an Avro file", "write it as Parquet"),
    _kind(rb"\x89HDF", "is an HDF5 file", "write it as Parquet, by pandas"),
    _kind(rb"\x80[\x02-\x05]", "is a pickle, which can run code", "write it as Parquet or JSON lines"),
    _kind(rb"SQLite format 3", "is a SQLite database", "export the table as CSV"),
    _kind(rb"\xff\xfe|\xfe\xff|[\[{]\0|\0[\[{]", "is UTF-16", "save it as UTF-8"),
    _kind(rb"version https://git-lfs", "is a git-lfs pointer, not the file that it stands for", "git lfs pull"),
)
"""How files begin, what they are and what to do."""
TEXTS = (
    _kind(rb"<", "is HTML or XML", "fetch the file itself, not a page that shows it"),
    _kind(rb"---\s", "is YAML", "write it as JSON lines"),
)
"""The same of texts, behind a byte order mark and blank lines."""
PACKED: Mapping[Packing, Kind] = {"gzip": GZIP, "zstd": ZSTD}


def foreign_kind(head: bytes) -> Kind | None:
    """What a file is if its first bytes show that it is no text of rows; else None."""
    text = text_of(head)
    binary = next((kind for kind in KINDS if kind.begins.match(head)), None)
    return binary or next((kind for kind in TEXTS if kind.begins.match(text)), None)


def text_of(head: bytes) -> bytes:
    """A text's beginning without what may stand before it."""
    return head.removeprefix(MARK).lstrip()


def begins_as_json(head: bytes) -> bool:
    """Whether a text begins as JSON objects do, or an array of them."""
    return re.match(rb"\{|\[\s*(\{|$)", text_of(head)) is not None


JsonLayout = Literal["lines", "array", "objects"]
"""Lines, an array of any layout, or objects over several lines, one behind another."""
BROKEN_LINE = re.compile(rb"\{(?:[^\n]*[\[:]\s*\n|(?:[^\n]*,)?[ \t\r]*\n\s*[\"}])")
"""An object that goes on in the next line, where pretty printers break lines: behind `{`, `,`, `[` or `:`."""


def json_layout(head: bytes) -> JsonLayout:
    """How a file of JSON is laid out, by its first bytes: `.json` and `.jsonl` are used for all of them."""
    text = text_of(head)
    if text.startswith(b"["):
        return "array"
    return "objects" if BROKEN_LINE.match(text) else "lines"
