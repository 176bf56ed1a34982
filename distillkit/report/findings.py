"""What to look at first: rules over a run's own metrics, each with the figures that made it speak.

Each rule compares means over a few steps, so that one odd step says nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.frozen import Value
from distillkit.report.run_record import RunRecord
from distillkit.report.training_routes import TrainedRoute, trained_routes
from distillkit.significant import significant

STEPS = 5
"""Steps whose mean is compared: the first and the newest."""
NEVER_ENDS = 0.8
"""The share of completions cut at the limit from which on they hardly ever end by themselves."""
DROWNS = 3.0
"""How many times a route's weight may be its even part (with two routes: at most 0.9) before it drowns the others."""
AGREES = 0.02
"""Nats a token: a teacher that was never further from the student than this has nothing to teach it."""
STUCK, STUCK_STEPS = 0.9, 15
"""The share of the first gap that is left after so many steps, above which nothing was learnt."""
LOST = 0.05
"""The share of completions that was lost from which on that is a finding."""


@dataclass(frozen=True, slots=True)
class Finding(Value):
    """One thing to look at."""

    message: str
    """What was found, and what is likely to help."""
    chart: str
    """The id of the chart that shows it; empty: none does."""


def findings(run: RunRecord) -> tuple[Finding, ...]:
    """What to look at first; nothing where no rule speaks."""
    routes = trained_routes(run)
    return tuple(found for rule in RULES for found in rule(run, routes))


def _never_ends(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    newest = newest_mean(run, "completions/truncated_fraction")
    if newest is not None and newest >= NEVER_ENDS:
        yield Finding(
            f"Completions hardly ever end: {newest:.0%} were cut at the length limit in the newest steps. Either "
            "sampling.max_completion_tokens is too small for what the student writes, or nothing ends its turn "
            "(sampling.stop_ids; `distillkit check --probe` tells).",
            "truncated",
        )


def _drowns(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    weights = {route.slug: route.weight for route in routes if route.weight is not None}
    if len(weights) < 2:
        return
    slug, most = max(weights.items(), key=lambda each: each[1])
    if most >= min(0.9, DROWNS / len(weights)):
        yield Finding(
            f"Route {slug} drowns the others: it has {most:.0%} of all token weight, with {len(weights)} routes. Rows "
            "or lengths are uneven: train.normalization: route_mean weighs routes alike, `share` of teachers sets "
            "their part of the rows.",
            "weight",
        )


def _agrees(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    for route in routes:
        sizes = [abs(gap) for gap in (route.first_gap, route.newest_gap) if gap is not None]
        if sizes and max(sizes) < AGREES:
            yield Finding(
                f"The teacher of route {route.slug} agrees with the student everywhere: the gap is "
                f"{significant(route.first_gap or 0.0)} nats a token from the first steps on, so there is nothing to "
                "learn. Does it read the privileged prompt that is meant for it, and is it the model that was meant "
                "(`distillkit diagnose`)?",
                "gap",
            )


def _stuck(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    for route in routes:
        begun, left = route.first_gap, route.headroom
        if begun is None or left is None or begun < AGREES or route.steps < STUCK_STEPS or left < STUCK:
            continue
        yield Finding(
            f"The gap of route {route.slug} does not fall: after {route.steps} steps {left:.0%} of it is left. A "
            "higher learning_rate, more steps, or a teacher that is nearer to the student may help.",
            "headroom",
        )


def _mismatch(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    train = run.config.get("train")
    limit = train.get("warn_logprob_mismatch") if isinstance(train, dict) else None
    newest = newest_mean(run, "rollout/logprob_mismatch")
    if newest is not None and isinstance(limit, int | float) and newest > limit:
        yield Finding(
            f"Sampler and trainer disagree by {significant(newest)} nats a token of what was sampled: it should be "
            "rounding. The student is trained on another policy than the one that sampled.",
            "mismatch",
        )


def _lost(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    failed, all_ = run.losses.completions.get("failed", 0), sum(run.losses.completions.values())
    if all_ and failed / all_ >= LOST:
        yield Finding(f"{failed:,} of {all_:,} completions were lost; the reasons stand under “What was lost”.", "")


Rule = Callable[[RunRecord, Sequence[TrainedRoute]], Iterator[Finding]]
RULES: tuple[Rule, ...] = (_never_ends, _drowns, _agrees, _stuck, _mismatch, _lost)


def newest_mean(run: RunRecord, metric: str) -> float | None:
    """The mean over the newest steps that have this metric."""
    values = [value for step, value in run.values(metric) if step > 0][-STEPS:]
    return float(np.mean(values)) if values else None
