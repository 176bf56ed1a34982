"""What the engine itself measures of held-out completions, whatever evaluators there are."""

from collections.abc import Mapping, Sequence

import numpy as np

from distillkit.events import EvalResult, Measure, RowValue
from distillkit.metrics import repetition
from distillkit.records import Rollout

COMPLETIONS = "the student's completions"
"""Where an evaluator's name stands among results."""
LENGTH, ENDED, REPETITION = "mean_length", "ended_fraction", "repetition"
COMPLETION_MEASURES: Mapping[str, Measure] = {
    LENGTH: Measure("mean length, tokens"),
    ENDED: Measure("ended by themselves", "higher", "share"),
    REPETITION: Measure("repeated 4-grams", "lower", "share"),
}


def completion_figures(rollouts: Sequence[Rollout], routes: Mapping[str, str]) -> EvalResult:
    """Length, the share that ended and repetition, over all, by route and by row. `routes`: row id to label."""
    by_route: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        by_route.setdefault(routes[rollout.key.row_id], []).append(rollout)
    by_row = {
        name: {rollout.key.row_id: RowValue(values(rollout)) for rollout in rollouts} for name, values in VALUES.items()
    }
    return EvalResult(_measure(rollouts), {route: _measure(mine) for route, mine in by_route.items()}, by_row)


def _measure(rollouts: Sequence[Rollout]) -> dict[str, float]:
    if not rollouts:
        return {}
    means = {name: float(np.mean([values(rollout) for rollout in rollouts])) for name, values in VALUES.items()}
    return {**means, "truncated_fraction": 1.0 - means[ENDED]}


def _length(rollout: Rollout) -> float:
    return float(len(rollout.token_ids))


def _ended(rollout: Rollout) -> float:
    return float(rollout.finish_reason == "stop")


def _repetition(rollout: Rollout) -> float:
    return float(repetition(rollout.token_ids))


VALUES = {LENGTH: _length, ENDED: _ended, REPETITION: _repetition}
