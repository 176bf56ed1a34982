"""The numbers of a step, by the same names on every backend."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from distillkit.arrays import Array, FloatArray, IntArray
from distillkit.errors import PluginError
from distillkit.events import EvalResult
from distillkit.records import Score, ScoredRollout
from distillkit.token_arrays import NO_ID
from distillkit.training_data import Batch, StepResult
from distillkit.types import Teacher

MIXER = np.array([1_000_003**power for power in range(4)], np.uint64)
"""Of a polynomial hash of four ids; that two 4-grams of one completion meet in 2^64 does not happen."""


def finite(value: float) -> float | None:
    """A plain number (metrics may be numpy's). JSON knows no NaN or infinity: an unknown number is null."""
    return float(value) if math.isfinite(value) else None


def mean_over_tokens(values: Sequence[FloatArray]) -> float:
    """The mean of all elements of several arrays, each counted alike, summed in float64."""
    whole = values[0] if len(values) == 1 else np.concatenate(values)
    return float(np.mean(whole, dtype=np.float64))


def active_logprobs(completions: Sequence[ScoredRollout], teacher: str | None = None) -> tuple[FloatArray, FloatArray]:
    """[n] sampling and teacher logprobs of all active tokens, one completion after another; of at least one.

    `teacher` is one that has scored all of them; None: each row's own, or the mixture of its teachers.
    """
    sampling = [scored.rollout.at_active(scored.rollout.logprobs) for scored in completions]
    teachers = [
        scored.rollout.at_active(scored.teacher_logprobs if teacher is None else scored.scores[teacher].logprobs)
        for scored in completions
    ]
    return np.concatenate(sampling), np.concatenate(teachers)


def reverse_kl(completions: Iterable[ScoredRollout], teacher: str | None = None) -> dict[str, float]:
    """`KL(student || teacher)`, estimated on what the student sampled.

    The sum over a completion of `sampling_logprob - teacher_logprob` at active tokens is an unbiased estimate of the
    reverse KL between the two models' distributions of whole completions, where these are sampled at temperature 1.

    Args:
        completions: what the student sampled.
        teacher: the teacher whose scores count, of the completions that have one; None: each row's own, or the mixture
            of its teachers, token by token.

    Returns:
        `reverse_kl` in nats a token and `reverse_kl_per_completion` in nats; nothing where no active token is scored.
    """
    gaps = [
        scored.rollout.at_active(scored.rollout.logprobs)
        - scored.rollout.at_active(scored.teacher_logprobs if teacher is None else scored.scores[teacher].logprobs)
        for scored in completions
        if teacher is None or teacher in scored.scores
    ]
    if not any(map(len, gaps)):
        return {}
    per_completion = sum(float(gap.sum(dtype=np.float64)) for gap in gaps) / len(gaps)
    return {"reverse_kl": mean_over_tokens(gaps), "reverse_kl_per_completion": per_completion}


def step_metrics(completions: Sequence[ScoredRollout], batches: Sequence[Batch]) -> dict[str, float]:
    """Means over the active tokens of a step's completions, each weighed alike."""
    if not completions:
        return {}
    rollouts = [scored.rollout for scored in completions]
    sampling, teachers = active_logprobs(completions)
    metrics = {
        **({"train/reverse_kl": mean_over_tokens([sampling - teachers])} if len(sampling) else {}),
        "train/teacher_nll": -mean_over_tokens([teachers]),
        "train/sampling_nll": -mean_over_tokens([sampling]),
        "train/active_tokens": float(len(sampling)),
        "completions/mean_length": float(np.mean([len(rollout.token_ids) for rollout in rollouts])),
        "completions/repetition": float(np.mean([repetition(rollout.token_ids) for rollout in rollouts])),
        "completions/truncated_fraction": float(np.mean([rollout.finish_reason == "length" for rollout in rollouts])),
    }
    advantages = _active_advantages(completions, batches)
    if len(advantages):
        metrics["train/advantage"] = mean_over_tokens([advantages])
        metrics["train/abs_advantage"] = mean_over_tokens([np.abs(advantages)])
    return metrics


def _active_advantages(completions: Sequence[ScoredRollout], batches: Sequence[Batch]) -> FloatArray:
    """[n] of all active tokens, one completion after another; [0] of a loss without advantages."""
    rollouts = {scored.key: scored.rollout for scored in completions}
    parts = [
        rollouts[datum.key].at_active(datum.inputs["advantages"])
        for batch in batches
        for datum in batch.datums
        if "advantages" in datum.inputs
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def repetition(token_ids: IntArray) -> float:
    """The share of a completion's 4-grams [R] that stood in it before; 0 for one of fewer than five tokens."""
    if len(token_ids) < 5:
        return 0.0
    grams = np.correlate(token_ids.view(np.uint64), MIXER)
    grams.sort()
    return 1.0 - (1 + np.count_nonzero(grams[1:] != grams[:-1])) / len(grams)


def topk_mass(scores: Sequence[Score]) -> float | None:
    """The mean probability, over active tokens, of the teacher's K most probable tokens; None unless all have them."""
    tables = [_at_active(score, score.arrays.get("topk_logprobs")) for score in scores]
    mass = [np.exp(table.astype(np.float64)).sum(axis=1) for table in tables if table is not None]
    return float(np.mean(np.concatenate(mass))) if len(mass) == len(scores) and any(map(len, mass)) else None


def topk_overlap(scores: Sequence[Score]) -> float | None:
    """The share of the K most probable tokens that policy and teacher have in common, the mean over active tokens.

    K is the smaller of both sides'. None unless both have them of all completions.
    """
    shares = []
    for score in scores:
        ours = _at_active(score, score.request.rollout.arrays.get("topk_ids"))
        theirs = _at_active(score, score.arrays.get("topk_ids"))
        if ours is None or theirs is None:
            return None
        k = min(ours.shape[1], theirs.shape[1])
        both = np.sort(np.concatenate([ours[:, :k], theirs[:, :k]], axis=1), axis=1)
        shares.append(((both[:, 1:] == both[:, :-1]) & (both[:, 1:] != NO_ID)).sum(axis=1) / k)
    return float(np.mean(np.concatenate(shares))) if any(map(len, shares)) else None


def _at_active(score: Score, table: Array | None) -> Array | None:
    return None if table is None else score.request.rollout.at_active(table)


def mean_of(results: Sequence[StepResult]) -> dict[str, float]:
    """The mean of each metric over the optimizer steps of one step."""
    names = dict.fromkeys(name for result in results for name in result.metrics)
    values = {name: [result.metrics[name] for result in results if name in result.metrics] for name in names}
    return {name: float(np.mean(mine)) for name, mine in values.items()}


def eval_metrics(results: Mapping[str, EvalResult], teachers: Sequence[Teacher]) -> dict[str, float]:
    """`eval/<metric>` over all rows and `eval_route/<slug>/<metric>` for each route, by evaluator name.

    Raises PluginError where two give the same metric.
    """
    metrics: dict[str, float] = {}
    owners: dict[str, str] = {}
    for evaluator, result in results.items():
        new = {f"eval/{name}": value for name, value in result.metrics.items()}
        for route, values in result.routes.items():
            slug = route_slug(route, teachers)
            new |= {f"eval_route/{slug}/{name}": value for name, value in values.items()}
        clash = sorted(metrics.keys() & new.keys())
        if clash:
            raise PluginError(f"{clash[0]} is measured twice, by {owners[clash[0]]!r} and {evaluator!r}; rename one")
        metrics |= new
        owners |= dict.fromkeys(new, evaluator)
    return metrics


def route_slug(label: str, teachers: Sequence[Teacher]) -> str:
    """What metric names call a route: its teachers' slugs, joined by `+`."""
    slugs = {teacher.name: teacher.slug for teacher in teachers}
    return slugs.get(label) or "+".join(slugs.get(part, part) for part in label.split("+"))


def route_order(labels: Iterable[str], teachers: Sequence[Teacher]) -> list[str]:
    """Labels of routes in the order in which people read them everywhere: that of the config's teachers.

    Routes of one teacher come before those of several.
    """
    places = {teacher.name: place for place, teacher in enumerate(teachers)}

    def place(label: str) -> tuple[int, list[int], str]:
        parts = [label] if label in places else label.split("+")
        return len(parts), [places.get(part, len(places)) for part in parts], label

    return sorted(labels, key=place)


def route_shown(label: str, teachers: Sequence[Teacher]) -> str:
    """How people read a route: what its teachers are called, joined by `+`."""
    shown = {teacher.name: teacher.shown for teacher in teachers}
    return shown.get(label) or "+".join(shown.get(part, part) for part in label.split("+"))
