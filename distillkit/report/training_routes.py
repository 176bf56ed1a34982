"""What training itself did by route: rows, tokens, weight, and the gap at its beginning and now."""

import re
from dataclasses import dataclass

import numpy as np

from distillkit.frozen import Value
from distillkit.report.run_record import RunRecord

ROUTE = re.compile(r"teacher_route/(.+)/tokens")
STEPS = 5


@dataclass(frozen=True, slots=True)
class TrainedRoute(Value):
    """One route over the run; what is not measured is None."""

    slug: str
    """How metric names call it."""
    steps: int
    """Steps with completions of it."""
    completions: int
    failed: int
    """Completions that its teacher did not score."""
    tokens: int
    """Active ones, over all steps."""
    weight: float | None
    """Its part of all token weight, the mean over steps."""
    first_gap: float | None
    """Nats a token: the mean over its first five steps."""
    newest_gap: float | None
    """The same over the newest five."""
    headroom: float | None
    """The newest gap by the first, as training measured it."""
    truncated: float | None
    """The share of completions that were cut, over the newest five steps."""


def trained_routes(run: RunRecord) -> tuple[TrainedRoute, ...]:
    """Each route that a step had."""
    names = dict.fromkeys(name for step in run.steps for name in step)
    slugs = [found[1] for name in names if (found := ROUTE.fullmatch(name))]
    return tuple(_route(run, slug) for slug in slugs)


def _route(run: RunRecord, slug: str) -> TrainedRoute:
    def values(metric: str) -> list[float]:
        return [value for _, value in run.values(f"teacher_route/{slug}/{metric}")]

    gaps = values("reverse_kl")
    return TrainedRoute(
        slug=slug,
        steps=len(gaps),
        completions=int(sum(values("scored"))),
        failed=int(sum(values("failed"))),
        tokens=int(sum(values("tokens"))),
        weight=_mean(values("weight")),
        first_gap=_mean(gaps[:STEPS]),
        newest_gap=_mean(gaps[-STEPS:]),
        headroom=next(reversed(values("headroom")), None),
        truncated=_mean(values("truncated_fraction")[-STEPS:]),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
