"""In which order a run has its rows, and what a sort refuses."""

from pathlib import Path
from typing import Any

import pytest

from distillkit.data.row_format.expressions import SortKey
from distillkit.errors import DataError, RowError
from engine.data.selected_rows import indexed, trained


def test_rows_are_sorted_in_every_epoch_and_shuffled_only_where_alike(tmp_path: Path) -> None:
    columns = [{"n": n, "level": n % 3} for n in range(60)]
    rows, _ = indexed(tmp_path, columns, by="level")
    straight = trained(rows, shuffle=False)
    assert straight == [n for level in range(3) for n in range(60) if n % 3 == level]
    shuffled = trained(rows, shuffle=True)
    assert [n % 3 for n in shuffled] == [n % 3 for n in straight]
    assert shuffled != straight
    assert sorted(shuffled) == list(range(60))
    assert trained(rows, shuffle=True) == shuffled
    assert trained(rows, shuffle=True, epoch=1) != shuffled
    assert trained(rows, shuffle=True, seed=1) != shuffled


@pytest.mark.parametrize(
    ("by", "descending", "order"),
    [
        ("n", False, [-2, 0, 1.5, 10]),
        ("n", True, [10, 1.5, 0, -2]),
        ("name", False, [10, 0, 1.5, -2]),
        ("name", True, [1.5, -2, 0, 10]),
        ("name | length", True, [-2, 0, 10, 1.5]),
    ],
)
def test_by_numbers_and_by_texts(tmp_path: Path, by: str, descending: bool, order: list[float]) -> None:
    columns = [{"n": 10, "name": "a"}, {"n": 1.5, "name": "é"}, {"n": -2, "name": "é"}, {"n": 0, "name": "bb"}]
    columns[2]["name"] = "ééé" if "length" in by else "é"
    rows, _ = indexed(tmp_path, columns, by=by, descending=descending)
    assert trained(rows, shuffle=False) == order


@pytest.mark.parametrize(
    ("texts", "by", "order", "noted"),
    [
        (["2", "10", "1.5", "9"], "n", ["1.5", "10", "2", "9"], "'10' before '2'"),
        (["2", "10", "1.5", "9"], "n | float", ["1.5", "2", "9", "10"], ""),
        (["02", "10", "01"], "n", ["01", "02", "10"], ""),
        (["2", "10", "x"], "n", ["10", "2", "x"], ""),
    ],
)
def test_numbers_that_are_sorted_as_texts_are_said(
    tmp_path: Path, texts: list[str], by: str, order: list[str], noted: str
) -> None:
    rows, selection = indexed(tmp_path, [{"n": text} for text in texts], by=by)
    assert [texts[int(at)] for at in rows.order(0, 0, shuffle=False)] == order
    warnings = [*selection.warnings()]
    assert len(warnings) == bool(noted)
    assert all(noted in warning and "`| float`" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            [{"n": 1}, {}],
            "data.sort.by: `n` is no column. The row has messages. A text stands in quotes: 'n'; "
            "of a column that some rows have: `n | default(99, true)`",
        ),
        (
            [{"n": 1}, {"n": None}],
            "data.sort.by: gives a JSON null, not a number or a text; `n | default(99, true)` is 99 then",
        ),
        ([{"n": 1}, {"n": True}], "data.sort.by: gives a JSON boolean, not a number or a text"),
        ([{"n": 1}, {"n": [1]}], "data.sort.by: gives a JSON array, not a number or a text"),
        ([{"n": 1}, {"n": "a"}], "data.sort.by: gives a text here and numbers before; rows are sorted by one or the"),
        ([{"n": "a"}, {"n": 1}], "data.sort.by: gives a number here and texts before"),
        ([{"n": 1}, {"n": 10**400}], "data.sort.by: gives a number beyond what a float can be"),
    ],
)
def test_what_no_row_is_sorted_by(tmp_path: Path, columns: list[Any], message: str) -> None:
    rows, _ = indexed(tmp_path, columns, by="n")
    with pytest.raises(DataError) as caught:
        rows.validate(lambda row: None)
    assert f"rows.jsonl:2: {message}" in str(caught.value)


def test_a_sort_of_what_a_filter_keeps(tmp_path: Path) -> None:
    rows, _ = indexed(tmp_path, [{"n": n} for n in (3, "x", 1, "y", 2)], keep="n is number", by="n")
    assert trained(rows, shuffle=False) == [1, 2, 3]


def test_what_is_advised_of_a_key_is_of_all_of_it() -> None:
    with pytest.raises(RowError, match=r"`\(-1 and level\) \| default\(99, true\)`"):
        SortKey(" -1 and level").of({"level": None})
