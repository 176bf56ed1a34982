"""The verdict of two evaluations, or of training alone where there is nothing else."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distillkit.events import EvalResult, Measure, PolicyFigures, RowValue
from distillkit.metrics import route_order, route_shown
from distillkit.types import Teacher
from distillkit.verdict.completion_figures import COMPLETION_MEASURES, ENDED, REPETITION
from distillkit.verdict.paired_change import change_of, paired_change, unpaired_change
from distillkit.verdict.run_verdict import Change, Decay, DecayWarning, Missing, RouteVerdict
from distillkit.verdict.verdict_sentences import Verdict

LEAST_DECAY = 0.1
"""The share of completions that end, or of repeated 4-grams: a change of less is no warning."""
LEAST_GAP = 0.02
"""Nats a token: a gap that rises by less is no warning."""
GAP = "reverse_kl"
DECAYS: Mapping[str, tuple[Decay, float]] = {
    GAP: ("gap", LEAST_GAP),
    "train/reverse_kl": ("gap", LEAST_GAP),
    ENDED: ("endings", LEAST_DECAY),
    "completions/truncated_fraction": ("endings", LEAST_DECAY),
    REPETITION: ("repetition", LEAST_DECAY),
    "completions/repetition": ("repetition", LEAST_DECAY),
}
"""What is warned of where it got worse: metric to what it shows, and from which change on."""
TRAINING_MEASURES: Mapping[str, Measure] = {
    "train/reverse_kl": Measure("reverse KL, nats a token", "lower"),
    "completions/mean_length": COMPLETION_MEASURES["mean_length"],
    "completions/truncated_fraction": Measure("cut at the length limit", "lower", "share"),
    "completions/repetition": COMPLETION_MEASURES[REPETITION],
}
StepMetrics = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Steps:
    """Metrics of the first steps of training and of the newest, as many of both, and how many there were in all."""

    trained: int
    first: Sequence[StepMetrics] = ()
    newest: Sequence[StepMetrics] = ()


def verdict_of(
    before: PolicyFigures | None,
    after: PolicyFigures | None,
    measures: Mapping[str, Measure],
    teachers: Sequence[Teacher],
    steps: Steps,
    missing: Missing | None = None,
) -> Verdict:
    """What changed between two evaluations of the same held-out rows.

    Args:
        before: of the policy before training; None: it was not evaluated.
        after: of a later policy.
        measures: what is compared, by metric, the evaluators' and the engine's own.
        teachers: all of the run, for the names of routes.
        steps: what training itself measured.
        missing: why there are no evaluations at all, if there are none.
    """
    lacks = missing or ("before" if before is None else "after" if after is None else None)
    training, unknown = tuple(_training(steps)), _without_numbers(steps)
    if lacks or before is None or after is None:
        warned = tuple(_warnings("", "training", training))
        return Verdict(lacks, steps.trained, None, (), training, warned, tuple(unknown))
    comparison = _Comparison(before, after, measures)
    overall, left_out = _finite(comparison.route(None, "", ""))
    labels = route_order(set(after.routes.values()), teachers)
    found = [_finite(comparison.route(label, label, route_shown(label, teachers))) for label in labels]
    routes = tuple(route for route, _ in found)
    unknown = list(dict.fromkeys([*unknown, *left_out, *(each for _, some in found for each in some)]))
    warnings = [each for route in routes for each in _warnings(route.route, route.shown, route.changes)]
    for label, shown, changes in (("", "", overall.changes), ("", "training", training)):
        seen = {warning.decay for warning in warnings}
        warnings += [each for each in _warnings(label, shown, changes) if each.decay not in seen]
    return Verdict(None, after.step, overall, routes, training, tuple(warnings), tuple(unknown))


@dataclass(frozen=True, slots=True)
class _Comparison:
    before: PolicyFigures
    after: PolicyFigures
    measures: Mapping[str, Measure]

    def route(self, label: str | None, name: str, shown: str) -> RouteVerdict:
        """That of one route, or of all rows."""
        rows = [row for row, route in self.after.routes.items() if label in (None, route)]
        return RouteVerdict(name, shown, len(rows), tuple(self._changes(label, frozenset(rows))))

    def _changes(self, label: str | None, rows: frozenset[str]) -> Iterator[Change]:
        for evaluator, now in self.after.results.items():
            then = self.before.results.get(evaluator, EvalResult({}))
            was, is_now = _metrics(then, label), _metrics(now, label)
            for metric in dict.fromkeys([*now.by_row, *is_now]):
                if metric not in self.measures:
                    continue
                measure = self.measures[metric]
                if metric in now.by_row:
                    found = paired_change(
                        metric, measure, _of(then.by_row.get(metric, {}), rows), _of(now.by_row[metric], rows)
                    )
                    yield from () if found is None else (found,)
                elif _differ(was.get(metric), is_now[metric]):  # what is measured once, such as a teacher's own rate
                    yield change_of(metric, measure, was[metric], is_now[metric], None, None)


def _differ(before: float | None, after: float) -> bool:
    return before is not None and math.isfinite(before) and math.isfinite(after) and before != after


def _metrics(result: EvalResult, label: str | None) -> Mapping[str, float]:
    return result.metrics if label is None else result.routes.get(label, {})


def _of(by_row: Mapping[str, RowValue], rows: frozenset[str]) -> Mapping[str, RowValue]:
    return {row: value for row, value in by_row.items() if row in rows}


def _training(steps: Steps) -> Iterator[Change]:
    for metric, measure in TRAINING_MEASURES.items():
        first, newest = _known(steps.first, metric), _known(steps.newest, metric)
        if first and newest:
            yield unpaired_change(metric, measure, first, newest)


def _finite(route: RouteVerdict) -> tuple[RouteVerdict, list[str]]:
    """The verdict of a route without changes that are no numbers, as where sums overflow; and what those measure."""
    known = tuple(each for each in route.changes if math.isfinite(each.before) and math.isfinite(each.after))
    return replace(route, changes=known), [change.label for change in route.changes if change not in known]


def _without_numbers(steps: Steps) -> list[str]:
    """What people call measures of training of which the first steps or the newest have no finite number."""
    found = (
        measure.label
        for metric, measure in TRAINING_MEASURES.items()
        for side in (steps.first, steps.newest)
        if any(metric in step for step in side) and not _known(side, metric)
    )
    return list(dict.fromkeys(found))


def _known(steps: Sequence[StepMetrics], metric: str) -> list[float]:
    values = (step.get(metric) for step in steps)
    return [value for value in values if value is not None and math.isfinite(value)]


def _warnings(route: str, shown: str, changes: Sequence[Change]) -> Iterator[DecayWarning]:
    for change in changes:
        decay, least = DECAYS.get(change.metric, (None, math.inf))
        if decay is not None and change.outcome == "worse" and abs(change.difference) >= least:
            yield DecayWarning(decay, route, shown, change)
