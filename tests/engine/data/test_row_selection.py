"""Which rows a run has, and what a filter refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distillkit.data.row_format.expressions import RowFilter, SortKey
from distillkit.data.row_index import RowIndex
from distillkit.data.row_selection import RowSelection
from distillkit.errors import DataError, RowError
from distillkit.raw_row import RawRow, RowFile
from distillkit.roles.dataset import Dataset
from engine.data.selected_rows import USER, indexed


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("n > 2", [3, 4]),
        ("n in [1, 4]", [1, 4]),
        ("kind == 'a' and n < 4", [1, 3]),
        ("kind.startswith('b')", [2]),
        ("row['n'] is odd", [1, 3]),
        ("true", [1, 2, 3, 4]),
    ],
)
def test_the_rows_that_a_filter_keeps(tmp_path: Path, expression: str, kept: list[int]) -> None:
    columns = [{"n": n, "kind": "b" if n == 2 else "a"} for n in range(1, 5)]
    rows, selection = indexed(tmp_path, columns, keep=expression)
    assert [row.fields["n"] for row in rows.rows()] == kept
    assert [*selection.notes("row")] == [f"data.filter keeps {len(kept)} of 4 rows"]


def test_max_rows_counts_what_the_filter_keeps(tmp_path: Path) -> None:
    rows, selection = indexed(tmp_path, [{"n": n} for n in range(100)], keep="n % 10 == 9", max_rows=3)
    assert [row.fields["n"] for row in rows.rows()] == [9, 19, 29]
    assert [*selection.notes("row")] == ["data.filter keeps 3 of 30 rows"]


def test_the_digest_is_of_the_rows_that_are_kept(tmp_path: Path) -> None:
    first = indexed(tmp_path, [{"n": 1}, {"n": 2}], keep="n == 2")[0].digest
    assert indexed(tmp_path, [{"n": 0}, {"n": 2}], keep="n == 2")[0].digest == first
    assert indexed(tmp_path, [{"n": 1}, {"n": 2, "x": 1}], keep="n == 2")[0].digest != first


def test_a_filter_that_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        indexed(tmp_path, [{"n": "1"}, {"n": 2}], keep="n | int > 2 and messages | length == 1")
    assert str(caught.value) == (
        f"{tmp_path}/rows.jsonl: data.filter keeps none of 2 rows; the first hold\n"
        '  messages: [{"role": "user", "content": "Why?"}], [{"role": "user", "content": "Why?"}]\n'
        '  n: "1", 2'
    )
    with pytest.raises(DataError, match=r"none of 4 rows; the first hold\n  n: 0, 1, 2, \.\.\.$"):
        indexed(tmp_path, [{"n": n} for n in range(4)], keep="n > 5")
    with pytest.raises(DataError, match=r"none of 1 row$"):
        indexed(tmp_path, [{"n": 1}], keep="false")


def test_problems_are_counted_among_all_rows_that_were_read(tmp_path: Path) -> None:
    columns = [{"n": n, **({"x": 1} if n % 2 else {})} for n in range(100)]
    rows, _ = indexed(tmp_path, columns, keep="x > 1")
    with pytest.raises(DataError, match="50 of 100 rows have this problem"):
        rows.validate(lambda row: None)
    rows, _ = indexed(tmp_path, columns, keep="n < 10")
    with pytest.raises(DataError, match="10 of 10 rows have this problem"):
        rows.validate(lambda row: refuse())


def refuse() -> None:
    raise RowError("n", "is refused")


@pytest.mark.parametrize(
    ("expression", "advice"),
    [
        ("level > 2", "of a column that some rows have: `level | default(0, true)`"),
        ("nothing > 2", "`nothing | default(0, true)` is 0 then"),
        ("cell > 2", "as every cell of CSV is: `cell | float` is its number"),
        ("n == web", "A text stands in quotes: 'web'"),
        ("n != null", "`null` is no column; `none` is what is empty: `column is not none`. The row has"),
        ("len(cell) > 3", "`len` is no column; a filter does it: `column | length`. The row has"),
    ],
)
def test_what_a_filter_could_have_said(tmp_path: Path, expression: str, advice: str) -> None:
    rows, _ = indexed(tmp_path, [{"n": 1, "nothing": None, "cell": "3"}], keep=expression)
    with pytest.raises(DataError) as caught:
        rows.validate(lambda row: None)
    assert advice in str(caught.value)


def test_what_is_advised_for_rows_without_a_value_works() -> None:
    for columns in ({}, {"level": None}):
        assert not RowFilter("level | default(0, true) > 2").keeps(columns)
        assert SortKey("level | default(99, true)").of(columns) == 99


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("n", "data.filter: gives 1, neither true nor false; compare it with something"),
        ("n or kind", "data.filter: gives 1, neither true nor false"),
        ("nothin > 1", "data.filter: `nothin` is no column; did you mean 'nothing'?"),
        (
            "nothing > 1",
            "data.filter: TypeError: '>' not supported between instances of 'NoneType' and 'int'; a column",
        ),
        ("n > 'a'", "data.filter: TypeError: '>' not supported between instances of 'int' and 'str'"),
    ],
)
def test_what_a_filter_refuses_is_said_of_each_row(tmp_path: Path, expression: str, message: str) -> None:
    rows, _ = indexed(tmp_path, [{"n": 1, "nothing": None}, {"n": 1, "nothing": None}], keep=expression)
    with pytest.raises(DataError) as caught:
        rows.validate(lambda row: None)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert f"rows.jsonl:2: {message}" in lines[1]


def test_filters_and_keys_read_columns_as_they_are() -> None:
    columns = {"messages": 1, "level": 2}
    assert RowFilter("messages == 1").keeps(columns)
    assert SortKey("messages").of(columns) == 1.0
    with pytest.raises(RowError):
        RowFilter("expected_answer == 1").keeps(columns)


ENDLESS = RowFile("numbers")


class Counting(Dataset):
    """Rows without end."""

    name = "counting"

    def read(self) -> Iterator[RawRow]:
        number = 0
        while True:
            number += 1
            yield RawRow.of(ENDLESS, number, {"messages": USER, "n": number})


def test_reading_ends_with_the_last_row_that_is_taken() -> None:
    selection = RowSelection(RowFilter("n % 100 == 0"), None)
    assert len(RowIndex(Counting(), 5, selection)) == 5
    assert selection.read == 500


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": value} for who, value in turns]}


GOOD = chat(("human", "Why?"), ("gpt", "So."))


@pytest.mark.parametrize(
    ("wrong", "good"),
    [
        ([{"question": None}, {"question": ""}], {"question": "Why?"}),
        ([chat(), chat(("gpt", "So."))], GOOD),
        ([chat(("human", None), ("gpt", "So."))], GOOD),
        ([chat(("critic", "No."))], GOOD),
    ],
)
def test_the_docs_have_a_filter_for_what_is_commonly_wrong(wrong: list[dict[str, Any]], good: dict[str, Any]) -> None:
    docs = (Path(__file__).parents[3] / "docs/your-data.md").read_text(encoding="utf-8")
    table = docs.partition("| what is wrong | `filter` |")[2].partition("Several are joined")[0]
    cells = [line.replace("\\|", "|").rpartition("` |")[0].partition("| `")[2] for line in table.splitlines()]
    filters = [RowFilter(cell) for cell in cells if cell]
    assert len(filters) == 4
    read = [found for found in filters if found.reads <= good.keys()]
    assert all(found.keeps(good) for found in read)
    for row in wrong:
        assert not all(found.keeps(row) for found in read if not fails(found, row))


def fails(row_filter: RowFilter, row: dict[str, Any]) -> bool:
    """Whether a row is one that the filter cannot be asked about."""
    try:
        row_filter.keeps(row)
    except RowError:
        return True
    return False
