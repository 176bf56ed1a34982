"""The same rows in every format that files are read in."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Rows = Sequence[Mapping[str, Any]]


def _lines(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _delimited(rows: Rows, delimiter: str) -> bytes:
    """Values that are no text stand as JSON in their cells."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    return text.getvalue().encode()


def _parquet(rows: Rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), sink, row_group_size=5)
    return bytes(sink.getvalue())


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


FORMATS: Mapping[str, Callable[[Rows], bytes]] = {
    "rows.jsonl": _lines,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "objects.jsonl": lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows).encode(),
    "rows.csv": lambda rows: _delimited(rows, ","),
    "rows.tsv": lambda rows: _delimited(rows, "\t"),
    "rows.parquet": _parquet,
    "rows.jsonl.gz": lambda rows: gzip.compress(_lines(rows), mtime=0),
    "rows.jsonl.zst": lambda rows: _zstd(_lines(rows)),
    "rows.csv.gz": lambda rows: gzip.compress(_delimited(rows, ","), mtime=0),
}
"""What a file of this name holds of some rows, which all have the same keys."""


def write_rows(folder: Path, name: str, rows: Rows) -> str:
    """A file of that format; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(FORMATS[name](rows))
    return str(path)
