"""One split of a Hugging Face dataset, opened, and which of several is meant."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillkit import DataError

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN_NAMES = 20


@dataclass(frozen=True, slots=True)
class OpenedSplit:
    """A split whose rows are on this disk as Arrow."""

    rows: "Dataset"
    name: str
    """With config and split, as messages show it."""
    commit: str | None = None
    """What it is on the hub, where that is known."""


def choose_split(names: Collection[str], asked: str | None, where: str) -> str:
    """The split that is read. Raises DataError if it is not there, or none is named and there are several."""
    if asked is not None and asked not in names:
        raise DataError(no_such("split", asked, where, names))
    if asked is None and len(names) != 1:
        first = next(iter(names), "train")
        raise DataError(f"{where} has the splits {listed(names)}; say which: {where}#{first}")
    return asked or next(iter(names))


def no_such(kind: str, asked: str, where: str, names: Collection[str]) -> str:
    """That there is no split (or config, or revision) of this name, and which there are."""
    return f"{where} has no {kind} {asked!r}; it has {listed(names)}"


def listed(names: Collection[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    return (", ".join(list(names)[:SHOWN_NAMES]) or "none") + (f" and {more} more" if more > 0 else "")
