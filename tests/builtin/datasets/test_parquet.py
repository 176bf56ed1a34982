"""Parquet: what JSON can hold as JSON, what it cannot left out and said, and damage never read as data."""

import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.raw_rows import fields, read
from helpers.rows import rows_of

from distillkit import DataError
from distillkit_builtin.datasets import parquet
from distillkit_builtin.datasets.files import FilesDataset

CHAT = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
WHEN = dt.datetime(2026, 3, 1, 12, 30, 0, 250_000)
ZONED = pa.timestamp("us", tz="+01:00")


def table(path: Path, columns: dict[str, pa.Array], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    ("kind", "value", "as_json"),
    [
        (pa.string(), "é\n\u2028\0", "é\n\u2028\0"),
        (pa.large_string(), "x", "x"),
        (pa.dictionary(pa.int8(), pa.string()), "x", "x"),
        (pa.bool_(), True, True),
        (pa.uint64(), 2**64 - 1, 2**64 - 1),
        (pa.int8(), -1, -1),
        (pa.float64(), 0.1, 0.1),
        (pa.float32(), 0.1, 0.1),
        (pa.float32(), 16777216.0, 16777216.0),
        (pa.float32(), float("nan"), None),
        (pa.list_(pa.float16()), [0.5, 0.1], [0.5, 0.1]),
        (pa.float64(), float("nan"), None),
        (pa.null(), None, None),
        (pa.date32(), WHEN.date(), "2026-03-01"),
        (pa.date64(), WHEN.date(), "2026-03-01"),
        (pa.timestamp("us"), WHEN, "2026-03-01T12:30:00.250000"),
        (pa.timestamp("s"), WHEN.replace(microsecond=0), "2026-03-01T12:30:00"),
        (pa.timestamp("ns"), WHEN, "2026-03-01T12:30:00.250000"),
        (ZONED, WHEN.replace(tzinfo=dt.UTC), "2026-03-01T13:30:00.250000+01:00"),
        (pa.time64("us"), WHEN.time(), "12:30:00.250000"),
        (pa.decimal128(10, 2), decimal.Decimal("1.50"), "1.50"),
        (CHAT, [{"role": "user", "content": "hi"}], [{"role": "user", "content": "hi"}]),
        (pa.list_(pa.date32()), [WHEN.date(), None], ["2026-03-01", None]),
        (pa.large_list(pa.int64()), [1, None], [1, None]),
        (pa.struct({"a": pa.struct({"b": pa.float64()}), "c": pa.string()}), {"a": {"b": float("nan")}, "c": "x"},
         {"a": {"b": None}, "c": "x"}),
        (pa.struct({"a": pa.date32()}), {"a": None}, {"a": None}),
        (pa.map_(pa.string(), pa.date32()), [("k", WHEN.date()), ("n", None)], {"k": "2026-03-01", "n": None}),
        (pa.map_(pa.string(), CHAT), [("k", [{"role": "user", "content": "x"}])],
         {"k": [{"role": "user", "content": "x"}]}),
    ],
    ids=str,
)  # fmt: skip
def test_every_type_that_json_can_hold(tmp_path: Path, kind: pa.DataType, value: Any, as_json: Any) -> None:
    path = table(tmp_path / "a.parquet", {"it": pa.array([value, None], kind), "n": pa.array([1, 2])})
    assert fields(path) == [{"it": as_json, "n": 1}, {"it": None, "n": 2}]
    assert FilesDataset(path=str(path)).notes() == []


def test_lists_of_one_length(tmp_path: Path) -> None:
    """Without null among them, which pyarrow reads from some version on, and refuses before."""
    kind = pa.list_(pa.float32(), 2)
    path = table(tmp_path / "a.parquet", {"it": pa.array([[0.5, float("nan")], [1, 2]], kind)})
    assert fields(path) == [{"it": [0.5, None]}, {"it": [1.0, 2.0]}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.binary(), b"x"),
        (pa.binary(1), b"x"),
        (pa.struct({"bytes": pa.binary(), "path": pa.string()}), {"bytes": b"x", "path": "a.png"}),
        (pa.list_(pa.binary()), [b"x"]),
        (pa.map_(pa.int64(), pa.string()), [(1, "x")]),
        (pa.duration("s"), dt.timedelta(1)),
    ],
    ids=str,
)
def test_a_column_that_json_cannot_hold_is_left_out_and_said(tmp_path: Path, kind: pa.DataType, value: Any) -> None:
    path = table(tmp_path / "a.parquet", {"image": pa.array([value], kind), "n": pa.array([1])})
    assert fields(path) == [{"n": 1}]
    (note,) = FilesDataset(path=str(path)).notes()
    assert note.startswith("left out, since such values have no form in JSON: image (")
    with pytest.raises(DataError, match="has no column of text, numbers, lists or structs, but image"):
        read(table(tmp_path / "b.parquet", {"image": pa.array([value], kind)}))


def test_rows_are_numbered_through_all_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", 3)
    path = table(tmp_path / "a.parquet", {"n": pa.array(range(20))}, row_group_size=7)
    assert read(path) == [(n + 1, {"n": n}) for n in range(20)]


def bad_text(values: list[bytes]) -> pa.Array:
    """A column that says it is UTF-8, as some writers do without looking."""
    good = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(good), good.buffers())


def test_a_value_that_is_wrong_is_said_and_the_other_rows_go_on(tmp_path: Path) -> None:
    columns = {"n": pa.array([0.0, 1.0, float("inf")]), "text": bad_text([b"a", b"\xff", b"c"])}
    columns["map"] = pa.array([[("k", 1)], [("k", 1)], [("j", 1)]], pa.map_(pa.string(), pa.int64()))
    found = read(table(tmp_path / "a.parquet", columns))
    assert found[0] == (1, {"n": 0.0, "text": "a", "map": {"k": 1}})
    assert found[1][1].startswith("text: cannot be read: 'utf-8' codec can't decode byte 0xff")
    assert found[2] == (3, "n: cannot be read: is infinite, which JSON does not have")


def test_a_key_that_stands_twice_in_a_map_or_a_row_is_refused(tmp_path: Path) -> None:
    kind = pa.map_(pa.string(), pa.int64())
    path = table(tmp_path / "a.parquet", {"map": pa.array([[("k", 1), ("k", 2)], []], kind)})
    assert read(path) == [
        (1, "map: cannot be read: a map holds a key twice; which one is meant is not said"),
        (2, {"map": {}}),
    ]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(twice, tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: has two columns 'a'; which one is meant is not said"):
        read(tmp_path / "b.parquet")


def test_columns_whose_names_have_dots(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"a.b": pa.array([1]), "a": pa.array([{"c": 2}]), "": pa.array(["x"])})
    assert fields(path) == [{"a.b": 1, "a": {"c": 2}, "": "x"}]


@pytest.mark.parametrize("cut", [4, 5, 60, -1, -8, -30])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, cut: int) -> None:
    path = table(tmp_path / "a.parquet", {"text": pa.array(["x" * 100] * 50)})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.parquet: is no whole Parquet file: .*Fetch or write it again"):
        read(path)


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"text": pa.array([f"row {n}" for n in range(500)])}, compression="zstd")
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet: is no whole Parquet file"):
        read(path)


def test_a_column_whose_name_is_no_text(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"column": pa.array([1])})
    path.write_bytes(path.read_bytes().replace(b"column", b"\xff" * 6))
    with pytest.raises(DataError, match=r"a\.parquet: is no whole Parquet file: 'utf-8' codec can't decode"):
        read(path)


def test_an_empty_table_holds_no_rows(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", {"messages": pa.array([], CHAT)})
    with pytest.raises(DataError, match=r"a\.parquet: holds no rows"):
        rows_of(path)


def test_a_chat_in_a_table_is_the_chat_in_a_line(tmp_path: Path) -> None:
    chats = [[{"role": "user", "content": f"é {n}"}] for n in range(3)]
    path = table(tmp_path / "a.parquet", {"messages": pa.array(chats, CHAT)})
    rows = rows_of(path)
    assert [[message.as_dict() for message in row.messages] for row in rows.rows()] == chats
    assert [row.place for row in rows.rows()] == [f"{path} row {n}" for n in (1, 2, 3)]
    assert json.loads(json.dumps(rows.row(2).fields["messages"], default=dict)) == chats[2]


def test_a_column_of_json_texts_is_what_they_hold(tmp_path: Path) -> None:
    texts = pa.array(['{"a": [1, null]}', None, '{"a": 1, "a": 2}']).cast(pa.json_())
    path = table(tmp_path / "rows.parquet", {"tools": texts})
    first, second, third = FilesDataset(path=str(path)).read()
    assert [json.loads(row.text) for row in (first, second)] == [{"tools": {"a": [1, None]}}, {"tools": None}]
    assert str(third.problem) == "tools: cannot be read: holds the key 'a' twice; which one is meant is not said"
