"""What to look at first: rules over a run's own metrics, each with the figures that made it speak.

Each rule compares means over a few steps, so that one odd step says nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.frozen import Value
from distillkit.loop.route_headroom import LEAST_GAP
from distillkit.report.run_record import RunRecord
from distillkit.report.starting_gaps import starting_gaps
from distillkit.report.training_routes import TrainedRoute, trained_routes
from distillkit.significant import significant

STEPS = 5
"""Steps whose mean is compared: the first and the newest."""
NEVER_ENDS, OFTEN_CUT = 0.8, 0.5
"""The share of completions cut at the limit from which on they hardly ever end by themselves, and often do not."""
MOST_WEIGHT, DROWNS = 0.9, 3.0
"""The weight at which a route drowns the others, or how many times its even part: whichever is less."""
DROWNED = 0.5
"""The part of its completions' share at which a route's weight is drowned: lengths alone make less than that."""
SAME_SIZE = 0.1
"""Nats a token in either direction: what one model's own logprobs differ by in two number formats is less."""
STUCK, RISES, STUCK_STEPS = 0.9, 1.2, 15
"""The share of the first gap that is left after so many steps, above which nothing was learnt; it rose."""
LOST = 0.05
"""The share of completions that was lost from which on that is a finding."""


@dataclass(frozen=True, slots=True)
class Finding(Value):
    """One thing to look at."""

    message: str
    """What was found, and what is likely to help."""
    chart: str
    """The id of the chart that shows it; empty: none does."""
    section: str = ""
    """The id of the section that shows it, where no chart does."""


def findings(run: RunRecord) -> tuple[Finding, ...]:
    """What to look at first; nothing where no rule speaks."""
    routes = trained_routes(run)
    return tuple(found for rule in RULES for found in rule(run, routes))


def _never_ends(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    newest = newest_mean(run, "completions/truncated_fraction") or 0.0
    cut = {route.shown: share for route in routes if (share := route.truncated or 0.0) >= NEVER_ENDS}
    if newest >= NEVER_ENDS or not cut:
        often = "hardly ever end" if newest >= NEVER_ENDS else "often do not end"
        what, how_many = f"Completions {often}", f"{newest:.0%} were cut" if newest >= OFTEN_CUT else ""
    else:
        what, how_many = f"Completions of {_named(cut)} hardly ever end", f"{min(cut.values()):.0%} or more were cut"
    if how_many:
        yield Finding(
            f"{what}: {how_many} at the length limit in the newest steps. Either sampling.max_completion_tokens is too "
            "small for what the student writes, or nothing ends its turn (sampling.stop_ids; "
            "`distillkit check --probe` tells).",
            "truncated",
        )


def _drowns(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    weights = {route.shown: route.weight for route in routes if route.weight is not None}
    if len(weights) < 2:
        return
    shown, most = max(weights.items(), key=lambda each: each[1])
    help_ = "train.normalization: route_mean weighs routes alike, `share` of teachers sets their part of the rows."
    if round(most, 2) >= min(MOST_WEIGHT, DROWNS / len(weights)):  # what people read: 89.99% is said to be 90%
        yield Finding(
            f"Route {shown} drowns the others: it has {most:.0%} of all token weight, with {len(weights)} routes. Rows "
            f"or lengths are uneven: {help_}",
            "weight",
        )
        return
    completions = sum(route.completions for route in routes)
    for route in routes:
        part = route.completions / completions if completions else 0.0
        if route.weight is not None and round(route.weight, 3) <= round(DROWNED * part, 3) and part:
            yield Finding(
                f"Route {route.shown} is drowned by {shown}: it has {part:.0%} of the completions and "
                f"{route.weight:.1%} of all token weight ({shown}: {most:.0%}). Its completions are short, or "
                f"weightings leave little of them: {help_}",
                "weight",
            )


def _agrees(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    for route, gap in _agreeing(run, routes):
        moved = abs(route.newest_gap or 0.0) >= LEAST_GAP
        yield Finding(
            f"The teacher of route {route.shown} agrees with the student everywhere: {gap}, so there is nothing to "
            "learn. Does it read the privileged prompt that is meant for it, and is it the model that was meant "
            f"(`distillkit diagnose`)?{MOVED if moved else ''}",
            "gap",
        )


def _agreeing(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[tuple[TrainedRoute, str]]:
    """Routes whose teacher has nothing to teach, and the figure that says so."""
    starts = starting_gaps(run)
    for route in routes:
        start = starts.get(route.slug)
        sizes = [abs(gap) for gap in (route.first_gap, route.newest_gap) if gap is not None]
        if start is not None and abs(start.mean) < LEAST_GAP and start.size < SAME_SIZE:
            yield route, f"before training the gap is {significant(start.mean)} nats a token"
        elif start is None and sizes and max(sizes) < LEAST_GAP:
            yield route, f"the gap is {significant(route.first_gap or 0.0)} nats a token from the first steps on"


MOVED = " It can only hold the student where it began: the gap that it has by now is what training moved."


def _stuck(run: RunRecord, routes: Sequence[TrainedRoute]) -> Iterator[Finding]:
    agreeing = {route.slug for route, _ in _agreeing(run, routes)}
    for route in routes:
        left = route.headroom
        if route.slug in agreeing or left is None or route.steps < STUCK_STEPS or left < STUCK:
            continue
        first, newest = (significant(gap or 0.0) for gap in (route.first_gap, route.newest_gap))
        if left >= RISES:
            found = f"rises: {first} nats a token in its first steps, {newest} in its newest of {route.steps}. A lower"
            found += " learning_rate may help; where other routes' gaps fall, give this one more weight or rows."
        else:
            found = f"does not fall: after {route.steps} steps {left:.0%} of it is left. A higher learning_rate, more "
            found += "steps, or a teacher that is nearer to the student may help."
        yield Finding(f"The gap of route {route.shown} {found}", "gap")


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
        yield Finding(
            f"{failed:,} of {all_:,} completions were lost; the reasons stand under “What was lost”.", "", "lost"
        )


Rule = Callable[[RunRecord, Sequence[TrainedRoute]], Iterator[Finding]]
RULES: tuple[Rule, ...] = (_never_ends, _drowns, _agrees, _stuck, _mismatch, _lost)


def newest_mean(run: RunRecord, metric: str) -> float | None:
    """The mean over the newest steps that have this metric."""
    values = [value for step, value in run.values(metric) if step > 0][-STEPS:]
    return float(np.mean(values)) if values else None


def _named(routes: Iterable[str]) -> str:
    names = [*routes]
    return f"route {names[0]}" if len(names) == 1 else f"routes {', '.join(names[:-1])} and {names[-1]}"
