"""What a dataset gives, held to what its role promises, so that a plugin's mistake is said to be its own."""

from collections.abc import Iterable, Iterator

from distillkit.errors import PluginError, RowError
from distillkit.raw_row import RawRow, RowFile, UnreadableRow
from distillkit.roles.dataset import Dataset

LARGEST_NUMBER = 2**32 - 1


def given_rows(dataset: Dataset) -> Iterator[RawRow | UnreadableRow]:
    """Every row that the dataset gives. Raises PluginError, with its class, for what is none.

    What a row is made of is looked at where a file begins, and where a row cannot be what it should.
    """
    last: RowFile | None = None
    number = 0
    try:
        rows = dataset.read()
        if not isinstance(rows, Iterable):
            raise _broken(dataset, f"read() returned {type(rows).__name__}; let it yield rows")
        for row in rows:
            if type(row) is not RawRow or row.file is not last or type(row.text) is not bytes:
                if fault := fault_of(row):
                    raise _broken(dataset, fault)
                last = row.file
            yield row
            number = row.number
    except RowError as error:
        where = f"behind {last.place(number)}" if last is not None and number else "before its first row"
        raise _broken(
            dataset,
            f"read() raised a RowError {where}, which ends all reading ({error}); yield an UnreadableRow of it: "
            "the others go on, and all rows that are wrong are said together",
        ) from error


def fault_of(row: object) -> str:
    """What is wrong with what a dataset gives as a row; empty: nothing."""
    if not isinstance(row, RawRow | UnreadableRow):
        return f"gives a {type(row).__name__}; a row is a RawRow (`RawRow.of` makes one of a mapping)"
    if not isinstance(row.file, RowFile):
        return f"gives a row whose file is a {type(row.file).__name__}; it is a RowFile, such as RowFile('my table')"
    number = row.number
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= LARGEST_NUMBER:
        return f"gives a row the number {number!r}; rows are counted from 1"
    shown = row.file.place(number)
    if isinstance(row, RawRow):
        kind = type(row.text).__name__
        return "" if isinstance(row.text, bytes) else f"gives {shown} a text of {kind}; it is UTF-8 bytes"
    if not isinstance(row.problem, RowError):
        return f"gives {shown} the problem {str(row.problem)[:200]!r}; it is a RowError(field, message)"
    return ""


def _broken(dataset: Dataset, fault: str) -> PluginError:
    return PluginError(f"dataset {dataset.name!r} ({type(dataset).__module__}.{type(dataset).__qualname__}): {fault}")
