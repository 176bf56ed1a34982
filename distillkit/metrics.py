"""The numbers of a step, by the same names on every backend."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from distillkit.arrays import FloatArray, IntArray
from distillkit.records import Batch, ScoredRollout, StepResult
from distillkit.types import Teacher

MIXER = np.uint64(1_000_003)
"""Base of a polynomial hash of four ids; that two 4-grams of one completion meet in 2^64 does not happen."""


def finite(value: float) -> float | None:
    """A plain number (metrics may be numpy's). JSON knows no NaN or infinity: an unknown number is null."""
    return float(value) if math.isfinite(value) else None


def gap_of(scored: ScoredRollout, teacher: str) -> FloatArray:
    """[active tokens] `sampling_logprob - teacher_logprob`: its mean over sampled tokens estimates the reverse KL."""
    rollout = scored.rollout
    gap: FloatArray = rollout.at_active(rollout.logprobs) - rollout.at_active(scored.scores[teacher].logprobs)
    return gap


def reverse_kl(scored: Iterable[ScoredRollout]) -> Mapping[str, float]:
    """`KL(student || teacher)` estimated on the student's own tokens: nats a token, and nats a completion.

    The sum over a completion of `log student - log teacher` at sampled tokens is an unbiased estimate of the reverse KL
    between the two models' laws of whole completions (where these are sampled at temperature 1).
    """
    sums = [float(gap_of(one, teacher).sum(dtype=np.float64)) for one in scored for teacher in one.scores]
    tokens = sum(one.rollout.active_count for one in scored for _ in one.scores)
    if not sums or not tokens:
        return {}
    return {"reverse_kl": sum(sums) / tokens, "reverse_kl_per_completion": sum(sums) / len(sums)}


def step_metrics(scored: Sequence[ScoredRollout], batches: Sequence[Batch]) -> dict[str, float]:
    """Means over the active tokens of a step's completions, each weighed alike."""
    if not scored:
        return {}
    rollouts = [one.rollout for one in scored]
    ours = np.concatenate([one.rollout.at_active(one.rollout.logprobs) for one in scored for _ in one.scores])
    theirs = np.concatenate([one.rollout.at_active(score.logprobs) for one in scored for score in one.scores.values()])
    metrics = {
        "train/reverse_kl": float(np.mean(ours - theirs, dtype=np.float64)),
        "train/teacher_nll": float(-np.mean(theirs, dtype=np.float64)),
        "train/sampling_nll": float(-np.mean(ours, dtype=np.float64)),
        "train/active_tokens": float(sum(one.active_count for one in rollouts)),
        "completions/mean_length": float(np.mean([len(one.token_ids) for one in rollouts])),
        "completions/repetition": float(np.mean([repetition(one.token_ids) for one in rollouts])),
        "completions/truncated_fraction": float(np.mean([one.finish_reason == "length" for one in rollouts])),
    }
    advantages = _active_advantages(scored, batches)
    if advantages.size:
        metrics["train/advantage"] = float(np.mean(advantages, dtype=np.float64))
        metrics["train/abs_advantage"] = float(np.mean(np.abs(advantages), dtype=np.float64))
    return metrics


def _active_advantages(scored: Sequence[ScoredRollout], batches: Sequence[Batch]) -> FloatArray:
    rollouts = {one.key: one.rollout for one in scored}
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
    ids = token_ids.view(np.uint64)
    grams = ((ids[3:] * MIXER + ids[2:-1]) * MIXER + ids[1:-2]) * MIXER + ids[:-3]
    grams.sort()
    return 1.0 - (1 + np.count_nonzero(grams[1:] != grams[:-1])) / len(grams)


def route_metrics(
    scored: Sequence[ScoredRollout], failed: Mapping[str, int], teachers: Sequence[Teacher]
) -> dict[str, float]:
    """For each teacher: completions with accepted scores, failed ones, and the reverse KL of this step."""
    metrics: dict[str, float] = {}
    for teacher in teachers:
        mine = [one for one in scored if teacher.name in one.scores]
        prefix = f"teacher_route/{teacher.slug}"
        metrics[f"{prefix}/scored"] = float(len(mine))
        metrics[f"{prefix}/failed"] = float(failed.get(teacher.name, 0))
        gaps = [gap_of(one, teacher.name) for one in mine]
        if gaps:
            metrics[f"{prefix}/reverse_kl"] = float(np.mean(np.concatenate(gaps), dtype=np.float64))
    return metrics


def mean_of(results: Sequence[StepResult]) -> dict[str, float]:
    """The mean of each metric over the optimizer steps of one step."""
    names = dict.fromkeys(name for result in results for name in result.metrics)
    values = {name: [result.metrics[name] for result in results if name in result.metrics] for name in names}
    return {name: float(np.mean(mine)) for name, mine in values.items()}
