"""How much of each route's gap at the start is left."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import JsonValue

from distillkit.loop.metric_windows import GAP, Row, route_gaps

LEAST_GAP = 0.02
"""Nats a token that a route must begin with: of less, which is rounding and chance, a share says nothing."""
STEPS = 5
"""Whose mean is the gap at the start, and the gap now: that of one step is of few tokens."""


@dataclass(slots=True)
class RouteHeadroom:
    """Each route's gap now over its gap at the start; what it knows is what `metrics.jsonl` holds."""

    _first: dict[str, list[float]] = field(default_factory=dict)
    _last: dict[str, deque[float]] = field(default_factory=dict)

    def remember(self, rows: Iterable[Mapping[str, JsonValue]]) -> None:
        """Metrics of steps from before this process began, in their order."""
        for row in rows:
            self.metrics({name: value for name, value in row.items() if isinstance(value, float | int)})

    def metrics(self, step: Row) -> dict[str, float]:
        """`teacher_route/<slug>/headroom` of one more step, of routes that it has completions of."""
        found = {}
        for name, gap in route_gaps(step):
            first, last = self._first.setdefault(name, []), self._last.setdefault(name, deque(maxlen=STEPS))
            last.append(gap)
            if len(first) < STEPS:
                first.append(gap)
            if fmean(first) >= LEAST_GAP:
                found[f"{name.removesuffix(GAP)}/headroom"] = fmean(last) / fmean(first)
        return found
