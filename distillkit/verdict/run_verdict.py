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


@dataclass(frozen=True, slots=True)
class DecayWarning(Value):
    """Something that speaks against what was trained, whatever else got better."""

    decay: Decay
    route: str
    """Its label; empty: all rows, or training."""
    shown: str
    """How people read it."""
    change: Change


@dataclass(frozen=True, slots=True)
class Verdict(Value):
    """Whether a run worked, as far as it was measured."""

    missing: Missing | None
    """Why before and after cannot be compared; None where they can."""
    step: int
    """Steps trained at the evaluation that is compared; without one, all so far."""
    overall: RouteVerdict | None
    """All held-out rows; None where nothing can be compared."""
    routes: tuple[RouteVerdict, ...]
    """Each route's."""
    training: tuple[Change, ...]
    """The first steps of training and the newest, which are of other rows; empty where there were too few."""
    warnings: tuple[DecayWarning, ...]

    @property
    def worse(self) -> tuple[tuple[str, Change], ...]:
        """How people read a route, and what got worse there; of all rows (empty) too, unless one route is all."""
        found = [(route.shown, change) for route in self.routes for change in route.changes]
        worse = [each for each in found if each[1].outcome == "worse"]
        seen = {change.metric for _, change in worse} if len(self.routes) == 1 else set()
        overall = () if self.overall is None else self.overall.changes
        rest = (change for change in overall if change.outcome == "worse" and change.metric not in seen)
        return (*worse, *(("", change) for change in rest))
