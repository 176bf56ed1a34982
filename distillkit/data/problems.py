"""What is wrong with many rows, said at once."""

from dataclasses import dataclass, field

from distillkit.errors import DataError, RowError
from distillkit.files.strict_json import shortened

SHOWN_PROBLEMS = 20
MESSAGE_LIMIT = 1000
"""Characters of what is said of a row, which may quote it."""


@dataclass(slots=True)
class Problems:
    """What is wrong with rows: many are reported at once, the first 20 in full."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, place: str, error: RowError) -> None:
        """Note one more row that is wrong."""
        self.count += 1
        if len(self.shown) < SHOWN_PROBLEMS:
            self.shown.append(said_of(place, error))

    def copy(self) -> "Problems":
        """The same so far, to go on with."""
        return Problems(self.count, [*self.shown])

    def raise_if_any(self) -> None:
        """Raise DataError with everything that was noted."""
        if self.count:
            more = self.count - len(self.shown)
            rest = [f"... and {more} more rows with problems"] if more else []
            raise DataError("\n".join([*self.shown, *rest]))


def said_of(place: str, error: RowError) -> str:
    """What is wrong with one row, and where."""
    return f"{place}: {shortened(str(error), MESSAGE_LIMIT)}"
