"""CSV and TSV: every cell as text, every row by the line where it begins, and nothing guessed."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_rows import fields, read
from hypothesis import given
from hypothesis import strategies as st

from distillkit import MAX_ROW_BYTES, DataError, RawRow, RowFile
from distillkit_builtin.datasets.delimited import read_delimited

CELLS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(['"', '""', ",", "\t", "\n", "\r\n", "\0"])


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]))
def test_what_the_standard_library_writes_is_read(rows: list[tuple[str, str]], delimiter: str, end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    stream = io.BytesIO(text.getvalue().encode())
    found = list(read_delimited(RowFile("x", unit="line"), stream, delimiter, chosen=True))
    import json

    assert all(isinstance(row, RawRow) for row in found)
    assert [tuple(json.loads(row.text).values()) for row in found if isinstance(row, RawRow)] == rows


def test_a_row_is_numbered_by_the_line_where_it_begins(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'q,a\n"one\ntwo",1\n\n"three",2\n')
    assert read(path) == [(2, {"q": "one\ntwo", "a": "1"}), (5, {"q": "three", "a": "2"})]


def test_every_cell_is_text_and_an_empty_one_is_empty_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'n,e,t,j\n1.50,,true,"[{""a"": 1}]"\n')
    assert fields(path) == [{"n": "1.50", "e": "", "t": "true", "j": '[{"a": 1}]'}]


@pytest.mark.parametrize("name", ["a.csv", "a.CSV"])
def test_a_mark_line_ends_of_windows_and_blank_lines(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"\xef\xbb\xbf\r\nq,a\r\n\r\nx,\xc3\xa9\r\n\r\n")
    assert read(path) == [(4, {"q": "x", "a": "é"})]


def test_tabs_in_tsv_and_what_is_chosen_in_both(tmp_path: Path) -> None:
    assert fields(write(tmp_path / "a.tsv", "q\ta\nx, y\tz\n")) == [{"q": "x, y", "a": "z"}]
    for name in ("b.csv", "b.tsv"):
        assert fields(write(tmp_path / name, "q;a\nx,\t;z\n"), delimiter=";") == [{"q": "x,\t", "a": "z"}]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("q,a,q", "the header has two columns 'q'; which one is meant is not said"),
        (",q", "the header has no name for column 1; the first row names every column (pandas leaves out the name"),
        ("q, ,a", "the header has no name for column 2"),
        (
            "q;a",
            "the header is one column, 'q;a', if ',' separates; it seems to be ';': write `source: {name: files, path",
        ),
        (
            "q\ta",
            "the header is one column, 'q\\ta', if ',' separates; it seems to be '\\t': write `source: {",
        ),
        ("q|a", "the header is one column, 'q|a', if ',' separates; it seems to be '|': write "),
    ],
)
def test_a_header_that_does_not_name_the_columns(tmp_path: Path, header: str, said: str) -> None:
    path = write(tmp_path / "a.csv", f"{header}\nx{header}\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    assert fields(write(tmp_path / "a.csv", "question;\nx\n")) == [{"question;": "x"}]
    assert fields(write(tmp_path / "b.csv", "a;b\nx;y\n"), delimiter=",") == [{"a;b": "x;y"}]  # said to be so


def test_rows_that_are_wrong_are_said_and_the_others_go_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'q,a\n1\n2,x\n3,x,y\n4,"x"y\n5,x\n6,\xff\n7,x\n')
    found = read(path)
    assert [number for number, row in found if isinstance(row, dict)] == [3, 6, 8]
    wrong = {number: row for number, row in found if isinstance(row, str)}
    assert wrong[2].startswith(
        "row: has 1 cells, the header has 2; a cell that holds ',', a quote or a line end stands"
    )
    assert wrong[4].startswith("row: has 3 cells, the header has 2")
    assert wrong[5] == "row: is not CSV: ',' expected after '\"'"
    assert wrong[7].startswith("row: is not UTF-8: byte 2 of line 7 is 0xff; save the file as UTF-8")
    assert len(found) == 7


@pytest.mark.parametrize(("data", "number"), [(b'q,a\n1,2\n3,"x\n4,5\n', 3), (b'q,a\n"', 2)])
def test_a_quote_that_is_never_closed_is_said_at_its_row(tmp_path: Path, data: bytes, number: int) -> None:
    found = read(write(tmp_path / "a.csv", data))
    assert found[-1] == (number, "row: is not CSV: unexpected end of data")


def test_a_header_that_is_no_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'\n"q"x,a\n1,2\n')
    with pytest.raises(DataError, match=r"a\.csv:2: row: is not CSV: ',' expected after"):
        read(path)


def test_line_ends_of_old_machines_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"q,a\r1,2\r3,4\r")
    with pytest.raises(DataError, match=r"a\.csv:1: row: has a carriage return alone, outside of quotes; save"):
        read(path)


def test_a_cell_may_be_as_long_as_a_row(tmp_path: Path) -> None:
    long = "x" * 2**20  # beyond what `csv` takes unless it is told to
    assert fields(write(tmp_path / "a.csv", f"q\n{long}\n")) == [{"q": long}]


@pytest.mark.parametrize(
    "rest", [b'"' + (b"x" * 999 + b"\n") * (MAX_ROW_BYTES // 999), b"x," * (MAX_ROW_BYTES // 2 + 1)]
)
def test_a_row_without_end_is_refused(tmp_path: Path, rest: bytes) -> None:
    path = write(tmp_path / "a.csv", b"q,a\n1,2\n" + rest)
    with pytest.raises(DataError, match=r"a\.csv:3: the row that begins here is longer than 16 MiB, or a quote in it"):
        read(path)


@pytest.mark.parametrize("delimiter", ['"', "\n", " ", "", ",,"])
def test_what_cannot_separate(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ValueError, match="delimiter"):
        read(tmp_path, delimiter=delimiter)


def test_a_delimiter_that_does_nothing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"{}\n")
    with pytest.raises(
        DataError, match=r"a\.jsonl: no file is CSV or TSV, so `delimiter` does nothing; take the option"
    ):
        read(path, delimiter=";")
    table = write(tmp_path / "b.csv", b"a;b\n1;2\n")
    assert fields([str(path), str(table)], delimiter=";") == [{}, {"a": "1", "b": "2"}]


def test_nothing_but_a_header_holds_no_rows(tmp_path: Path) -> None:
    found: list[Any] = read(write(tmp_path / "a.csv", b"q,a\n"))
    assert found == []
