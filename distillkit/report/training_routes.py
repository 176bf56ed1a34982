"""What training itself did by route: rows, tokens, weight, and the gap at its beginning and now."""

import re
from dataclasses import dataclass

import numpy as np

from distillkit.frozen import Value
from distillkit.loop.route_headroom import LEAST_GAP, STEPS
from distillkit.report.route_names import route_names
from distillkit.report.run_record import RunRecord

ROUTE = re.compile(r"teacher_route/(.+)/tokens")


@dataclass(frozen=True, slots=True)
class TrainedRoute(Value):
    """One route over the run; what is not measured is None."""

    slug: str
    """How metric names call it."""
    shown: str
    """How people read it."""
    steps: int
    """Steps with completions of it."""
    completions: int
    failed: int
    """Completions that its teacher did not score."""
    tokens: int
    """Active ones, over all steps."""
    weight: float | None
    """Its part of all token weight, the mean over all steps that had any: those of all routes make 1."""
    first_gap: float | None
    """Nats a token: the mean over its first five steps."""
    newest_gap: float | None
    """The same over the newest five."""
    headroom: float | None
    """The newest gap by the first; None where the first is next to nothing, so that a share of it is noise."""
    truncated: float | None
    """The share of completions that were cut, over the newest five steps."""


def trained_routes(run: RunRecord) -> tuple[TrainedRoute, ...]:
    """Each route that a step had."""
    names = dict.fromkeys(name for step in run.steps for name in step)
    slugs = [found[1] for name in names if (found := ROUTE.fullmatch(name))]
    weighed = sum(any(_weight(slug) in step for slug in slugs) for step in run.steps)
    called = route_names(run.config)
    return tuple(_route(run, slug, called.shown_as(slug), weighed) for slug in slugs)


def _route(run: RunRecord, slug: str, shown: str, weighed: int) -> TrainedRoute:
    def values(metric: str) -> list[float]:
        return [value for _, value in run.values(f"teacher_route/{slug}/{metric}")]

    gaps, weights = values("reverse_kl"), values("weight")
    first, newest = _mean(gaps[:STEPS]), _mean(gaps[-STEPS:])
    return TrainedRoute(
        slug=slug,
        shown=shown,
        steps=len(gaps),
        completions=int(sum(values("scored"))),
        failed=int(sum(values("failed"))),
        tokens=int(sum(values("tokens"))),
        weight=sum(weights) / weighed if weights else None,
        first_gap=first,
        newest_gap=newest,
        headroom=newest / first if first is not None and newest is not None and first >= LEAST_GAP else None,
        truncated=_mean(values("truncated_fraction")[-STEPS:]),
    )


def _weight(slug: str) -> str:
    return f"teacher_route/{slug}/weight"


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
