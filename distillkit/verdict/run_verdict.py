"""What a run came to, in figures: by route before and after, and what in them speaks against it."""

from dataclasses import dataclass
from typing import Literal

from distillkit.events import Measure
from distillkit.frozen import Value

Outcome = Literal["better", "worse", "changed", "same", "unclear", "unknown"]
"""`better`, `worse`: by more than two standard errors of the difference; `changed`: by more than those, where neither
way is the better one; `same`: not at all; `unclear`: by less; `unknown`: no standard error, or few rows."""
Missing = Literal["evaluators", "held-out rows", "before", "after"]
"""What was not there for a comparison: evaluators; held-out rows; an evaluation before training, or one since."""
Decay = Literal["gap", "endings", "repetition"]
"""What rose or fell that should not: the gap to the teachers, completions that end by themselves, repetition."""


@dataclass(frozen=True, slots=True)
class Change(Value):
    """One measure, before and after."""

    metric: str
    """Its name in `eval/<metric>`; of training, in `metrics.jsonl`."""
    label: str
    """What people call it."""
    unit: Literal["number", "share", "count"]
    """A share is shown in percent."""
    before: float
    """Over the rows that were measured both times."""
    after: float
    """Over the same rows."""
    standard_error: float | None
    """Of `after - before`, by the differences of the rows; None where the rows' own values are not known, or of fewer
    than two."""
    rows: int | None
    """How many rows were measured both times; of training, how many steps each side is the mean of; None where that is
    not known."""
    outcome: Outcome
    """`better`, `worse` or `changed` (neither way is the better one): by more than two standard errors; `unclear`: by
    less; `same`: not at all; `unknown`: no standard error, or fewer than six rows."""

    @property
    def difference(self) -> float:
        """`after - before`."""
        return self.after - self.before

    @property
    def measure(self) -> Measure:
        """How its values are read."""
        return Measure(self.label, unit=self.unit)


@dataclass(frozen=True, slots=True)
class RouteVerdict(Value):
    """What became of the rows of one route."""

    route: str
    """Its label, as files have it; empty: all rows together."""
    shown: str
    """How people read it."""
    rows: int
    """Held-out rows."""
    changes: tuple[Change, ...]
    """One a measure."""


@dataclass(frozen=True, slots=True)
class DecayWarning(Value):
    """Something that speaks against what was trained, whatever else got better."""

    decay: Decay
    """`gap`: to the teachers, which rose; `endings`: of completions by themselves, fewer; `repetition`: more."""
    route: str
    """Its label; empty: all rows, or training."""
    shown: str
    """How people read it."""
    change: Change
