"""Where rows are: what a dataset gives has to be told apart, since seeds and completions go by it."""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from pydantic import Field

from distillkit import Dataset, RawRow, RowFile
from distillkit.data.row_index import RowIndex
from distillkit.errors import PluginError


class Placed(Dataset):
    """Rows of the same content at the places that it is given."""

    name: ClassVar[str] = "placed"

    places: tuple[tuple[str, str, int], ...] = Field(description="Name, key and number of each row.")

    def read(self) -> Iterator[RawRow]:
        for name, key, number in self.places:
            yield RawRow.of(RowFile(name, key), number, {"a": 1})


def index_of(*places: tuple[str, str, int]) -> RowIndex:
    return RowIndex(Placed(places=places))


def test_rows_of_several_files_in_any_order_are_told_apart() -> None:
    index = index_of(("a", "a", 2), ("b", "b", 2), ("a", "a", 1))
    assert [index.id_of(at).partition("-")[0] for at in range(3)] == ["a:2", "b:2", "a:1"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([("a", "", 1), ("a", "", 2), ("a", "", 1)], "gives two rows the place a row 1; a row's number is unique"),
        ([("a", "a", 1), ("b", "b", 7), ("b", "b", 7)], "gives two rows the place b row 7;"),
        ([("a", "", 1), ("b", "", 2)], "gives two files the key '';"),
    ],
)
def test_rows_that_would_have_one_id_are_refused(places: Any, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        index_of(*places)
    assert str(caught.value).startswith(f"dataset 'placed' (Placed) {message}")


def test_the_digest_is_of_numbers_keys_and_order_and_not_of_where_the_source_is() -> None:
    first = index_of(("here/a", "a", 1), ("here/b", "b", 1)).digest
    assert index_of(("there/a", "a", 1), ("there/b", "b", 1)).digest == first
    assert index_of(("here/a", "a", 1), ("here/c", "c", 1)).digest != first  # ids, and so seeds, hold the key
    assert index_of(("here/a", "a", 2), ("here/b", "b", 1)).digest != first
    assert index_of(("here/b", "b", 1), ("here/a", "a", 1)).digest != first
    assert index_of(("here/a", "a", 1), ("here/a", "a", 2)).digest != first


def test_rows_are_read_from_any_place_to_any_place() -> None:
    index = index_of(("a", "a", 1), ("b", "b", 5), ("a", "a", 2))
    assert [raw.place for _, raw in index.read([2, 0, 1, 0])] == ["a row 2", "a row 1", "b row 5", "a row 1"]
