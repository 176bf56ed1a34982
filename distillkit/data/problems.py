"""What is wrong with many rows, said once: a group for each kind of problem, and some of its rows in full."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from distillkit.data.counted import counted
from distillkit.errors import DataError, RowError
from distillkit.files.strict_json import ContentError, parse_json, shortened

SHOWN_ROWS, SHOWN_KINDS = 3, 20
"""How many rows of a kind, and how many kinds, are said in full."""
KNOWN_KINDS = 200
"""How many kinds are told apart, so that no number of them takes memory; rows of others are counted."""
MESSAGE_LIMIT, TOTAL_LIMIT = 1000, 30_000
"""Characters of what is said of a row, which may quote it; and behind how many of them no kind is begun."""
KNOWN_COLUMNS, COLUMNS_LIMIT = 50, 500
"""How many columns are named, and with how many characters in all."""
QUOTED = re.compile(r"""(?<!\w)(?:'(?:[^'\\]|\\.)*(?:'|$)|"(?:[^"\\]|\\.)*(?:"|$))""")
NUMBER = re.compile(r"(?<!\w)-?\d[\d,.]*\w*")
SEVERAL = re.compile("…(?:, …)+")


@dataclass(slots=True)
class ProblemKind:
    """Problems that differ in numbers and in what is quoted alone."""

    fix: str
    """What to write, as the first of them says it."""
    rows: int = 0
    examples: list[str] = field(default_factory=list)
    """The first of them with their places."""

    def copy(self) -> "ProblemKind":
        """The same so far, to go on with."""
        return ProblemKind(self.fix, self.rows, [*self.examples])

    def said(self, of: int) -> Iterator[str]:
        """The first rows, how many there are where these are not all, and how to fix them."""
        if self.rows > len(self.examples):
            yield f"{self.rows:,} of {counted(of, 'row')} have this problem, such as"
        yield from self.examples
        if self.fix:
            yield f"  to fix {'it' if self.rows == 1 else 'all'}: {shortened(self.fix, MESSAGE_LIMIT)}"


@dataclass(slots=True)
class Problems:
    """What is wrong with rows, in flat memory and bounded length, however many there are."""

    count: int = 0
    """The rows that are wrong."""
    kinds: dict[str, ProblemKind] = field(default_factory=dict)
    """By what all problems of a kind have in common."""
    columns: dict[str, None] = field(default_factory=dict)
    """The columns of the first row of each kind."""

    def add(self, place: str, error: RowError, text: bytes = b"") -> None:
        """Note one more row that is wrong, whose JSON is `text` as far as it can be read."""
        self.count += 1
        said = shortened(str(error), MESSAGE_LIMIT)
        common = in_common(said)
        kind = self.kinds.get(common)
        if kind is None:
            if len(self.kinds) == KNOWN_KINDS:
                return
            kind = self.kinds[common] = ProblemKind(error.fix)
            if len(self.columns) < KNOWN_COLUMNS:
                self.columns |= dict.fromkeys(_columns(text)[:KNOWN_COLUMNS])
        kind.rows += 1
        if len(kind.examples) < SHOWN_ROWS:
            kind.examples.append(said_of(place, error))

    def copy(self) -> "Problems":
        """The same so far, to go on with."""
        return Problems(self.count, {common: kind.copy() for common, kind in self.kinds.items()}, {**self.columns})

    def raise_if_any(self, of: int, advice: Iterable[str] = ()) -> None:
        """Raise DataError with everything that was noted of `of` rows, and with what else there is to say."""
        if self.count:
            raise DataError("\n".join([*self._kinds_said(of), *self._columns_said(), *advice]))

    def _kinds_said(self, of: int) -> Iterator[str]:
        """Kinds of many rows first, the others in the order in which they were found."""
        kinds = sorted(self.kinds.values(), key=lambda kind: -kind.rows if kind.rows > SHOWN_ROWS else 0)
        length, rows = 0, 0
        for kind in kinds[:SHOWN_KINDS]:
            if length > TOTAL_LIMIT:
                break
            lines = list(kind.said(of))
            length, rows = length + sum(map(len, lines)), rows + kind.rows
            yield from lines
        if rows < self.count:
            yield f"... and {counted(self.count - rows, 'more row')} with other problems"

    def _columns_said(self) -> Iterator[str]:
        if self.columns and any(kind.rows > SHOWN_ROWS for kind in self.kinds.values()):
            yield f"columns of these rows: {shortened(', '.join(self.columns), COLUMNS_LIMIT)}"


def said_of(place: str, error: RowError) -> str:
    """What is wrong with one row, and where."""
    return f"{place}: {shortened(str(error), MESSAGE_LIMIT)}"


def in_common(said: str) -> str:
    """What is said of a row without numbers and quoted values, which differ from row to row."""
    return SEVERAL.sub("…", NUMBER.sub("#", QUOTED.sub("…", said)))


def _columns(text: bytes) -> list[str]:
    """The columns of a row; none where it cannot be read."""
    try:
        value = parse_json(text.decode("utf-8"))
    except (ValueError, ContentError):  # which is what is wrong with it
        return []
    return [shortened(name, 60) for name in value] if isinstance(value, dict) else []
