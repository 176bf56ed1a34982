"""Does one teacher's gap rise while others' fall? Then the others drown it out."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from distillkit.loop.metric_windows import Row, mean_over, route_gaps

LEAST_CHANGE = 0.05
"""Nats a token: below, a change of a reverse KL is noise."""


@dataclass(slots=True)
class RouteGuard:
    """Compares each route's gap with what it was in its best window, and with how the others' went."""

    rise: float | None
    """By which share of that a gap must have risen; None: never."""
    _least: dict[str, float] = field(default_factory=dict)
    """The mean gap of each route's best window so far."""

    def alarms(self, first: Collection[Row], last: Collection[Row]) -> list[str]:
        """Sentences on routes whose gap rises, of the run's first window and its newest; called for each step."""
        found = []
        for name in dict.fromkeys(name for row in last for name, _ in route_gaps(row)):
            now, best = mean_over(name, last), self._least.get(name, math.inf)
            if now is None:
                continue
            self._least[name] = min(best, now)
            if self.rise is None or not math.isfinite(best) or now - best <= max(LEAST_CHANGE, self.rise * best):
                continue
            others = list(_fallen(name, first, last))
            if others:
                found.append(
                    f"the gap to one teacher rises while others' fall, {name} is {now:.3f} after {best:.3f} and "
                    f"{', '.join(others)} (train.normalization=route_mean or teachers[].share makes it count for more)"
                )
        return found


def _fallen(rising: str, first: Collection[Row], last: Collection[Row]) -> Iterator[str]:
    for name in dict.fromkeys(name for row in last for name, _ in route_gaps(row)):
        then, now = mean_over(name, first), mean_over(name, last)
        if name != rising and then is not None and now is not None and then - now > LEAST_CHANGE:
            yield f"{name} {now:.3f} after {then:.3f}"
