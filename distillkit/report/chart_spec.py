"""One chart: which metrics are in it, how it is called, and how it is read."""

import re
from dataclasses import dataclass
from typing import Literal

from distillkit.frozen import Value

Unit = Literal["number", "share", "count"]
ALL = "all"
"""How the curve over all rows is called beside those of routes."""


@dataclass(frozen=True, slots=True)
class ChartSpec(Value):
    """One chart."""

    id: str
    title: str
    unit: str
    """Of its values, in words: `nats a token`."""
    help: str
    """How it is read, in a sentence."""
    metrics: tuple[str, ...]
    """Patterns of the names of metrics; what the group matches is the curve's label, else `label`."""
    label: str = ALL
    """Of curves whose pattern has no group."""
    kind: Unit = "number"
    """A share is shown in percent."""

    def curve_of(self, metric: str) -> str | None:
        """How a metric's curve is called here; None where it is of another chart."""
        for pattern in self.metrics:
            found = re.fullmatch(pattern, metric)
            if found is not None:
                return found[1] if found.groups() else self.label
        return None
