"""JSON arrays and objects over several lines: cut into rows as `json` reads them, and as strictly as lines."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.raw_rows import fields, read
from helpers.rows import rows_of
from hypothesis import given
from hypothesis import strategies as st

from distillkit import MAX_ROW_BYTES, DataError, RawRow, RowFile
from distillkit_builtin.datasets import json_values
from distillkit_builtin.datasets.json_values import read_json_values

FILE = RowFile("rows.json")
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text() | st.sampled_from(['"', "\\", "]", "}", "{", "\\\\"]), VALUES, max_size=3)
LAYOUTS = st.sampled_from(
    [{}, {"indent": 1}, {"indent": "\t"}, {"indent": 0, "ensure_ascii": False}, {"separators": (",", ":")}]
)


class Trickle(io.RawIOBase):
    """A stream that gives a few bytes at a time, whatever it is asked for."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = io.BytesIO(data), size

    def read(self, size: int = -1) -> bytes:
        return self.data.read(self.size)


def cut(data: bytes, layout: Any, size: int = 2**18) -> list[RawRow]:
    return list(read_json_values(FILE, Trickle(data, size), layout))  # type: ignore[arg-type]


@given(st.lists(OBJECTS, max_size=4), LAYOUTS, st.integers(3, 40))
def test_any_array_of_any_layout_is_cut_into_its_elements(rows: list[Any], how: dict[str, Any], size: int) -> None:
    found = cut(json.dumps(rows, **how).encode(), "array", size)
    assert [json.loads(row.text) for row in found] == rows
    assert [row.number for row in found] == list(range(1, len(rows) + 1))
    assert not any(b"\n" in row.text or b"\r" in row.text for row in found)


@given(st.lists(OBJECTS, max_size=4), LAYOUTS, st.integers(3, 40), st.sampled_from(["", " ", "\n", "\r\n\r\n"]))
def test_any_objects_behind_one_another_are_cut_apart(
    rows: list[Any], how: dict[str, Any], size: int, between: str
) -> None:
    data = between.join(json.dumps(row, **how) for row in rows).encode()
    assert [json.loads(row.text) for row in cut(data, "objects", size)] == rows


def test_a_line_end_in_a_string_is_refused_as_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"messages": "a\nb"}, {"messages": "a\tb"},\n{}]')
    with pytest.raises(DataError) as caught:
        rows_of(path).validate(lambda row: None)
    first, second, third = str(caught.value).splitlines()[:3]
    assert first.startswith(f"{path} row 1: ")
    assert "is not JSON: Invalid control character at" in first
    assert second.replace("row 2", "row 1") == first
    assert third.startswith(f"{path} row 3: messages: is missing")


def test_each_element_is_parsed_as_strictly_as_a_line_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    wrong = [
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"a": 1,}',
        b'{"a": [}]',
        b"[1]",
        b'"text"',
        b"null",
        b"0x1",
        b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
    ]
    path.write_bytes(b"[" + b",\n".join([*wrong, b'{"messages": []}']) + b"]")
    with pytest.raises(DataError) as caught:
        rows_of(path).validate(lambda row: None)
    said = [line for line in str(caught.value).splitlines() if line.startswith(f"{path} row ")]
    assert [line.removeprefix(f"{path} row ").partition(":")[0] for line in said] == [str(n) for n in range(1, 14)]
    for line, what in zip(said, ["twice", "NaN", "1e400", "half of", "UTF-8", "JSON", "JSON", "array", "string", "null",
                                 "JSON", "nested", "empty"], strict=True):  # fmt: skip
        assert what in line


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[", ":1: ends inside of the array: it was cut off"),
        (b'[{"a": 1}', ":1: ends inside of the array: it was cut off"),
        (b'[{"a": 1},\n', ":2: ends inside of the array: it was cut off"),
        (b'[\n{"a": 1},\n{"a": "', ":3: ends inside of a row: it was cut off, or brackets or quotes"),
        (b'[{"a": 1}, "b', ":1: ends inside of a row"),
        (b'[{"a": 1},]', ":1: has ] where a row should be"),
        (b'[,{"a": 1}]', ":1: has , where a row should be"),
        (b'[{"a": 1}\n\n{"a": 1}]', ":3: has { where a comma or the array's end should be"),
        (b'[{"a": 1}]\n[]', ":2: goes on behind the array's end"),
        (b'[{"a": 1}}]', ":1: has } where a comma or the array's end should be"),
        (b'{"a":\n1}\n}', ":3: has } where a row should be"),
        (b'{"a":\n1},\n{"a": 1}', ":2: has , where a row should be"),
        (b'{"a":\n{}\n', ":1: ends inside of a row"),
    ],
)
def test_where_the_text_is_no_array_the_line_is_said(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{said}")


def test_lines_are_counted_over_all_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "CHUNK", 7)
    path = tmp_path / "rows.json"
    path.write_bytes(b"[\n" + b'{"a":\n1}\n,\n' * 50 + b"]")
    with pytest.raises(DataError, match=":152: has ] where a row should be"):
        read(path)


@pytest.mark.parametrize("beyond", [0, 1, MAX_ROW_BYTES // 2])
def test_a_row_may_be_as_long_as_a_line(tmp_path: Path, beyond: int) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b"[{},\n" + b'{"":"' + b"x" * (MAX_ROW_BYTES - 7 + beyond) + b'"}, {}]')
    if beyond:
        with pytest.raises(DataError, match=r"rows\.json:2: has a row here that is longer than 16 MiB, or whose"):
            read(path)
    else:
        assert len(read(path)) == 3


def test_nothing_but_an_array_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    for data in (b"[]", b"\xef\xbb\xbf [\n ]\n"):
        path.write_bytes(data)
        assert read(path) == []


def test_a_mark_and_blank_lines_may_stand_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(b'\xef\xbb\xbf\r\n [ {"a": 1} ,\r\n {"a": 2}]\r\n')
    assert fields(path) == [{"a": 1}, {"a": 2}]
