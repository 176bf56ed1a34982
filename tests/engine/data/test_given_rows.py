"""What a dataset plugin gives that is no row: said of its class, with what a row is."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from distillkit import DataError, Dataset, RawRow, RowError, RowFile, UnreadableRow
from distillkit.data.row_index import RowIndex
from distillkit.errors import PluginError
from distillkit.testing import check_plugin

FILE = RowFile("table")
GOOD = RawRow.of(FILE, 1, {"a": 1})


class Given(Dataset):
    """Gives what it is told to, or raises it."""

    name: ClassVar[str] = "given"

    _items: tuple[Any, ...] = PrivateAttr(())

    def read(self) -> Iterator[Any]:
        for item in self._items:
            if isinstance(item, Exception):
                raise item
            yield item


class Nothing(Given):
    """Forgot to give anything."""

    name: ClassVar[str] = "nothing"

    def read(self) -> Any:
        return None


def given(*items: Any) -> Given:
    dataset = Given()
    dataset._items = items
    return dataset


@pytest.mark.parametrize("read", [RowIndex, check_plugin])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "gives a dict; a row is a RawRow"),
        (RawRow("table", 2, b"{}"), "gives a row whose file is a str; it is a RowFile"),  # type: ignore[arg-type]
        (UnreadableRow("table", 2, RowError("a", "b")), "gives a row whose file is a str"),  # type: ignore[arg-type]
        (RawRow(FILE, 2, "{}"), "gives table row 2 a text of str; it is UTF-8 bytes"),  # type: ignore[arg-type]
        (RawRow(RowFile("other"), 0, b"{}"), "gives a row the number 0; rows are counted from 1"),
        (UnreadableRow(FILE, 2, "odd"), "gives table row 2 the problem 'odd'; it is a RowError"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_row_is_said_of_the_class(read: Callable[[Dataset], Any], row: Any, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        read(given(GOOD, row))
    assert f"{__name__}.Given" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("before", "where"), [([], "before its first row"), ([GOOD], "behind table row 1"), ([GOOD, GOOD], "behind table")]
)
def test_a_row_error_out_of_read_ends_all_reading_and_is_said_so(before: list[Any], where: str) -> None:
    with pytest.raises(PluginError) as caught:
        RowIndex(given(*before, RowError("answer", "is odd")))
    said = str(caught.value)
    assert said.startswith(f"dataset 'given' ({__name__}.Given): read() raised a RowError {where}")
    assert "(answer: is odd); yield an UnreadableRow of it: the others go on" in said


def test_other_errors_of_a_dataset_are_its_own() -> None:
    with pytest.raises(DataError, match=r"^no such table$"):
        RowIndex(given(DataError("no such table")))
    with pytest.raises(PluginError, match=r"Nothing\): read\(\) returned NoneType; let it yield rows"):
        RowIndex(Nothing())


def test_rows_that_are_as_they_should_be() -> None:
    index = RowIndex(given(GOOD, UnreadableRow(FILE, 2, RowError("a", "b")), RawRow.of(RowFile("b", "b"), 1, {"a": 2})))
    assert (len(index), index.unreadable.count) == (2, 1)
