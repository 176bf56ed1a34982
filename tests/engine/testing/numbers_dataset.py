"""A dataset that keeps its contract."""

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from distillkit import Dataset, RawRow, RowError, RowFile, UnreadableRow

TABLE = RowFile("a table")


class Numbers(Dataset):
    """Three rows, the second of which is broken."""

    name: ClassVar[str] = "numbers"

    count: int = Field(3, description="How many.")

    def read(self) -> Iterator[Any]:
        for number in range(1, self.count + 1):
            yield self.row(number)

    def row(self, number: int) -> Any:
        if number == 2:
            return UnreadableRow(TABLE, number, RowError("x", "is broken"))
        return RawRow.of(TABLE, number, {"x": number})
