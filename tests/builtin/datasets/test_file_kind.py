"""Files that are not what their names say are said to be what they are, in one line; JSON lines never are."""

import bz2
import gzip
import json
import lzma
import pickle
import sqlite3
import tarfile
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
from distillkit_builtin.datasets.file_kind import foreign_kind, json_layout

ROW = {"messages": [{"role": "user", "content": "Why?"}]}
LINE = json.dumps(ROW).encode() + b"\n"
GZIP = gzip.compress(LINE, mtime=0)
TWICE = gzip.compress(GZIP, mtime=0)
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


def spreadsheet(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in ("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/worksheets/sheet1.xml"):
            file.writestr(name, "<x/>" * 100)


def tarred(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.add(__file__)


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rows (prompt TEXT)")


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


FILES: list[tuple[str, str, Callable[[Path], None]]] = [
    ("is compressed by gzip", "that ends with .gz", content(GZIP)),
    ("is compressed by zstd", "that ends with .zst", content(b"\x28\xb5\x2f\xfd" + LINE)),
    ("is compressed by zstd", "that ends with .zst", content(b"\x50\x2a\x4d\x18\0\0\0\0")),
    ("is compressed by bzip2", "bunzip2 -k", content(bz2.compress(LINE))),
    ("is compressed by xz", "unxz -k", content(lzma.compress(LINE))),
    ("is a zip archive", "export it as CSV", archive),
    ("is a spreadsheet: ", "export it as CSV (UTF-8)", spreadsheet),
    ("is a spreadsheet: ", "export it as CSV (UTF-8)", content(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100)),
    ("is a tar archive", "tar -xf", tarred),
    ("is a Parquet file", "that ends with .parquet", parquet),
    ("is an Arrow file", "Dataset.to_parquet", arrow),
    ("is an Arrow stream: give its folder, if `save_to_disk` wrote that", "Dataset.to_parquet", arrow_stream),
    ("is a SQLite database", "as CSV", database),
    ("is a pickle", "as Parquet or JSON lines", content(pickle.dumps([ROW]))),
    ("is UTF-16", "UTF-8", content(LINE.decode().encode("utf-16"))),
    ("is UTF-16", "UTF-8", content(LINE.decode().encode("utf-16-le"))),
    ("is a git-lfs pointer", "git lfs pull", content(b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n")),
    ("is HTML or XML", "fetch the file itself", content(b"\n<!doctype html><html></html>")),
    ("is YAML", "as JSON lines", content(b"---\nprompt: Why?\n")),
]


@pytest.mark.parametrize(("kind", "fix", "write"), FILES, ids=[f"{row[0]}-{i}" for i, row in enumerate(FILES)])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows", "rows.txt"])
def test_a_file_of_another_kind_is_named_in_one_line(
    tmp_path: Path, name: str, kind: str, fix: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: {kind}")
    assert fix in line


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("rows.jsonl.gz", LINE, "is not compressed by gzip, though its name ends with .gz: rename it"),
        ("rows.csv.zst", LINE, "is not compressed by zstd, though its name ends with .zst: rename it"),
        ("rows.jsonl.gz", bz2.compress(LINE), "is compressed by bzip2, though its name ends with .gz: unpack it by"),
        (
            "rows.jsonl.zst",
            GZIP,
            "is compressed by gzip, though its name ends with .zst: give it a",
        ),
        (
            "rows.jsonl.gz",
            TWICE,
            "is packed, and what it holds is compressed by gzip: ",
        ),
        (
            "rows.parquet.gz",
            gzip.compress(b"PAR1", mtime=0),
            "Parquet is compressed in itself, and is not read through gzip",
        ),
        ("rows.parquet", LINE, "is not a Parquet file, though its name ends with .parquet: rename it"),
        ("rows.parquet", b"<html>", "is HTML or XML, though its name ends with .parquet: fetch the file itself"),
        ("rows.csv", LINE, "begins as JSON, not as CSV: give it a name that ends with .jsonl or .json"),
        ("rows.tsv.gz", gzip.compress(b"\n[" + LINE + b"]", mtime=0), "begins as JSON, not as TSV"),
        ("rows.txt", b"prompt,answer\n", "its name does not say what it holds, and it does not begin as JSON"),
        (
            "rows.gz",
            gzip.compress(b"prompt,answer\n", mtime=0),
            "its name does not say what it holds, and it does not begin",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # each process that runs tests makes them anew
)
def test_where_name_and_content_do_not_agree_what_to_do_is_said(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    assert str(caught.value).startswith(f"{path}: {said}")


ARRAY = json.dumps([ROW, ROW], indent=1).encode()
INDENTED = b"\n".join([json.dumps(ROW, indent=1).encode()] * 2)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a", "a.txt", "a.JSON", "a.jsonl.gz", "a.gz"])
@pytest.mark.parametrize("data", [LINE * 2, ARRAY, INDENTED], ids=["lines", "array", "objects"])
def test_how_json_is_laid_out_is_seen_at_its_content(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    assert [row.messages[0].content for row in rows_of(path).rows()] == ["Why?", "Why?"]


@pytest.mark.parametrize(
    ("head", "layout"),
    [
        (b"{}\n", "lines"),
        (b"", "lines"),
        (b"{oops", "lines"),
        (b'{"a": 1', "lines"),
        (b'{"a": 1,\n{"a": 2}\n', "lines"),  # a line that is cut off
        (b'{"a": 1}, \n{"a": 2}\n', "lines"),
        (b'{ "a": 1,\r\n "b": 2}', "objects"),
        (b'\xef\xbb\xbf\n{\n"a": 1}', "objects"),
        (b"{\n}\n{\n}", "objects"),
        (b'{"a": [\n1]}', "objects"),
        (b'{"a":\n1}', "objects"),
        (b"\xef\xbb\xbf\r\n [\n", "array"),
        (b"[1, 2]\n[3]\n", "array"),
    ],
)
def test_layouts_of_json(head: bytes, layout: str) -> None:
    assert json_layout(head) == layout


WRITERS = st.sampled_from([{}, {"ensure_ascii": False}, {"separators": (",", ":")}])


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())), WRITERS, st.booleans())
def test_json_lines_are_of_no_foreign_kind(row: dict[str, object], how: dict[str, object], marked: bool) -> None:
    line = json.dumps(row, **how)  # type: ignore[arg-type]
    head = (b"\xef\xbb\xbf" if marked else b"") + line.encode() + b"\n" + LINE
    assert foreign_kind(head) is None
    assert json_layout(head) == "lines"


@given(st.binary(max_size=64))
def test_any_bytes_are_looked_at(head: bytes) -> None:
    foreign_kind(head)
    json_layout(head)


def test_a_first_line_longer_than_what_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    long = {"messages": [{"role": "user", "content": "x" * 10_000}]}
    path.write_bytes(b"".join([json.dumps(long).encode() + b"\n", LINE]))
    assert [len(row.messages[0].content) for row in rows_of(path).rows()] == [10_000, 4]
