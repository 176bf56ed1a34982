"""Role `dataset`: where rows come from."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar

from distillkit.raw_row import RawRow, UnreadableRow
from distillkit.roles.plugin import Plugin


class Dataset(Plugin):
    """Where rows come from. Pure: every reading gives the same rows in the same order.

    The engine reads all of it once when a run is prepared, and then each row whenever it is trained: it keeps the place
    of each row, shuffles, and goes on at any row, so that a source has nothing to do but to read.
    """

    role: ClassVar[str] = "dataset"

    @abstractmethod
    def read(self) -> Iterator[RawRow | UnreadableRow]:
        """Every row, one after another, so that it takes no more memory for more rows.

        Called in `check` as well, before any plugin is opened, and may be stopped before the end. Raise `DataError` for
        what cannot be read at all, naming what, where and how to fix it.
        """

    def place(self) -> str:
        """What messages call the whole source: a path, an address."""
        return f"dataset {self.name!r}"

    def notes(self) -> Sequence[str]:
        """What was found while reading that does not stop a run, such as columns that are left out; one line each."""
        return ()
