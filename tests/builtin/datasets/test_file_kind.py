"""Files that hold no JSON lines are said to be what they are, in one line; JSON lines never are."""

import bz2
import gzip
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.rows import rows_of
from hypothesis import given
from hypothesis import strategies as st

from distillkit.errors import DataError
from distillkit_builtin.datasets.file_kind import other_kind

ROW = {"messages": [{"role": "user", "content": "Why?"}]}
LINE = json.dumps(ROW).encode() + b"\n"
TABLE = pa.table({"prompt": ["Why?", "How?"]})


def parquet(path: Path) -> None:
    pq.write_table(TABLE, path)


def arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)


def arrow_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("rows.jsonl", LINE)


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rows (prompt TEXT)")


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


FILES: list[tuple[str, Callable[[Path], None]]] = [
    ("gzip", content(gzip.compress(LINE))),
    ("zstd", content(b"\x28\xb5\x2f\xfd" + LINE)),
    ("bzip2", content(bz2.compress(LINE))),
    ("xz", content(lzma.compress(LINE))),
    ("zip archive", archive),
    ("Parquet", parquet),
    ("Arrow file", arrow),
    ("Arrow stream", arrow_stream),
    ("SQLite", database),
    ("UTF-16", content(LINE.decode().encode("utf-16"))),
    ("git-lfs pointer", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")),
    ("HTML", content(b"\n<!doctype html><html></html>")),
    ("JSON array", content(json.dumps([ROW, ROW]).encode())),
    ("JSON array", content(json.dumps([ROW, ROW], indent=2).encode())),
    ("JSON array", content(b"\xef\xbb\xbf\r\n [\n")),
    ("indented", content(json.dumps(ROW, indent=1).encode())),
]


@pytest.mark.parametrize(("kind", "write"), FILES, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(FILES)])
def test_a_file_of_another_kind_is_named_in_one_line(tmp_path: Path, kind: str, write: Callable[[Path], None]) -> None:
    path = tmp_path / "rows.jsonl"
    write(path)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: is ")
    assert kind in line
    assert "rows are JSON lines" in line


WRITERS = st.sampled_from([{}, {"ensure_ascii": False}, {"separators": (",", ":")}])


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), WRITERS, st.booleans())
def test_json_lines_are_of_no_other_kind(row: dict[str, object], how: dict[str, object], marked: bool) -> None:
    line = json.dumps(row, **how)  # type: ignore[arg-type]
    assert other_kind((b"\xef\xbb\xbf" if marked else b"") + line.encode() + b"\n" + LINE) is None


@given(st.binary(max_size=64))
def test_any_bytes_are_looked_at(head: bytes) -> None:
    other_kind(head)


def test_a_first_line_longer_than_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    long = {"messages": [{"role": "user", "content": "x" * 10_000}]}
    path.write_bytes(b"".join([json.dumps(long).encode() + b"\n", LINE]))
    assert [len(row.messages[0].content) for row in rows_of(path).rows()] == [10_000, 4]
