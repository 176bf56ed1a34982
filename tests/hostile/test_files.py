"""Files of every format that no one would write on purpose, or that are only large: in bounded memory, never silent."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import peak_memory

MIB = 2**20
ROW = {"messages": [{"role": "user", "content": "Why? " * 4000}]}
LINE = json.dumps(ROW).encode()
LARGE = 20
"""MiB that a file holds; what reads it takes a fraction of that."""


def write(path: Path, parts: Iterator[bytes]) -> Path:
    with opened(path) as file:
        for part in parts:
            file.write(part)
    return path


def opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path, "wb", compresslevel=1)
    if path.suffix == ".zst":
        return pa.CompressedOutputStream(str(path), "zstd")  # type: ignore[no-any-return]
    return path.open("wb")


def many(first: bytes, row: bytes, between: bytes, last: bytes) -> Iterator[bytes]:
    yield first + row
    for _ in range(LARGE * MIB // len(row)):
        yield between + row
    yield last


LARGE_FILES = {
    "rows.jsonl.gz": (b"", LINE, b"\n", b""),
    "rows.jsonl.zst": (b"", LINE, b"\n", b""),
    "rows.json": (b"[", LINE, b",", b"]"),
    "rows.jsonl": (b"{\n", json.dumps(ROW, indent=1).encode()[1:], b"\n{\n", b""),
    "rows.csv": (b"question,n\n", b'"Why?\n' + b"x" * 20_000 + b'",1', b"\n", b"\n"),
    "rows.tsv.zst": (b"question\tn\n", b"Why? " * 4000 + b"\t1", b"\n", b"\n"),
}


@pytest.mark.parametrize("name", LARGE_FILES)
def test_a_large_file_takes_no_more_memory_than_its_index(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, many(*LARGE_FILES[name]))
    peak, problem = peak_memory.reading(path)
    assert ("messages" in problem) == (name.split(".")[1] in ("csv", "tsv"))  # all rows were read
    assert peak < LARGE / 4 * MIB


WITHOUT_END: dict[str, tuple[bytes, bytes, str]] = {
    "line": (LINE + b"\n", b'{"messages": "', ":2: line: is longer than 16 MiB"),
    "string in an array": (b"[" + LINE + b",\n", b'{"messages": "', ":2: has a row here that is longer than 16 MiB"),
    "nesting in an array": (b"[" + LINE + b",\n", b'{"messages": [[', ":2: has a row here that is longer"),
    "bare string in an array": (b"[" + LINE + b",\n", b'"', ":2: has a row here that is longer than 16 MiB"),
    "object over lines": (b'{"messages":\n[]}\n', b'{"messages": "', ":3: has a row here that is longer than 16 MiB"),
    "cell": (b"a,b\n1,2\n", b'1,"', ":3: the row that begins here is longer than 16 MiB"),
    "cell of lines": (b"a,b\n1,2\n", b'1,"\n', ":3: the row that begins here is longer than 16 MiB"),
    "row": (b"a,b\n1,2\n", b"1,2", ":3: the row that begins here is longer than 16 MiB"),
    "header": (b"", b"a,b", ":1: the row that begins here is longer than 16 MiB"),
}


PACKED = [(what, packing) for what in ("line", "string in an array", "cell") for packing in (".gz", ".zst")]


@pytest.mark.parametrize(("what", "packing"), [*((what, "") for what in WITHOUT_END), *PACKED])
def test_what_has_no_end_is_refused_and_never_held(tmp_path: Path, what: str, packing: str) -> None:
    start, rest, said = WITHOUT_END[what]
    text = {"cell of lines": b"x" * 100 + b"\n", "row": b",2"}.get(
        what, b"[" + b"1" * 9999 if what.startswith("nest") else b"x"
    )
    path = tmp_path / f"rows.{'csv' if b',' in start[:2] or what == 'header' else 'jsonl'}{packing}"
    write(path, iter([start, rest, *[text * (MIB // len(text))] * 80]))
    peak, problem = peak_memory.reading(path)
    assert said in problem
    assert peak < 5 * 16 * MIB


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst"])
def test_a_small_file_that_becomes_a_large_one_is_never_held(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, iter([LINE + b"\n", *[b" " * MIB] * 200]))
    assert path.stat().st_size < MIB
    peak, problem = peak_memory.reading(path)
    assert problem == f"{path}:2: line: is longer than 16 MiB; each row is a line of its own"
    assert peak < 5 * 16 * MIB


def table(path: Path, rows: int, column: Any, **options: Any) -> Path:
    batches = pa.record_batch({"messages": column})
    with pq.ParquetWriter(path, batches.schema, **options) as writer:
        writer.write_table(pa.Table.from_batches([batches] * (rows // len(column))), row_group_size=2**40)
    return path


CHAT = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))


@pytest.mark.parametrize("options", [{}, {"compression": "none", "use_dictionary": False}, {"compression": "zstd"}])
def test_a_parquet_file_of_one_row_group_takes_no_more_memory_than_a_batch(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    chats = pa.array([[{"role": "user", "content": f"{n} " + "Why? " * 4000}] for n in range(100)], CHAT)
    path = table(tmp_path / "rows.parquet", 3_000, chats, **options)
    assert pq.ParquetFile(path).num_row_groups == 1
    peak, problem = peak_memory.reading(path)
    assert problem == ""
    assert peak < 20 * MIB


def test_long_rows_are_decoded_a_few_at_a_time(tmp_path: Path) -> None:
    chats = pa.array([[{"role": "user", "content": f"{n} " + "Why? " * 100_000}] for n in range(16)], CHAT)
    path = table(tmp_path / "rows.parquet", 160, chats, use_dictionary=False)
    peak, problem = peak_memory.reading(path)
    assert problem == ""
    assert peak < 24 * MIB


def test_a_long_value_that_is_stored_once_is_not_decoded_for_all_rows_at_once(tmp_path: Path) -> None:
    path = table(tmp_path / "rows.parquet", 500, pa.array([[{"role": "user", "content": "x" * 900_000}]] * 10, CHAT))
    assert path.stat().st_size < MIB
    peak, problem = peak_memory.reading(path)
    assert problem == ""
    assert peak < 200 * MIB
