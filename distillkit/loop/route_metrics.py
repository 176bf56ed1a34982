"""The numbers of a step by teacher."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np

from distillkit.metrics import active_logprobs, mean_over_tokens, topk_mass, topk_overlap
from distillkit.records import ScoredRollout
from distillkit.training_data import Batch, Datum
from distillkit.types import Teacher


def route_metrics(
    completions: Sequence[ScoredRollout],
    failed: Mapping[str, int],
    teachers: Sequence[Teacher],
    batches: Sequence[Batch],
) -> dict[str, float]:
    """For each teacher its completions, those that failed, tokens, gap, share of the step's weight, and top-K figures.

    `batches` are those that were trained on the completions. Of a row with several teachers each is counted, and the
    row's weight is divided among them as its mixture is.
    """
    weights = _weights(completions, batches)
    total = sum(weights.values())
    metrics: dict[str, float] = {}
    for teacher in teachers:
        mine = [scored for scored in completions if teacher.name in scored.scores]
        found = {
            "scored": float(len(mine)),
            "failed": float(failed.get(teacher.name, 0)),
            "tokens": float(sum(scored.rollout.active_count for scored in mine)),
            **({"weight": weights.get(teacher.name, 0.0) / (total or 1.0)} if batches else {}),
            **dict(_measured(mine, teacher.name)),
        }
        metrics |= {f"teacher_route/{teacher.slug}/{name}": value for name, value in found.items()}
    return metrics


def _measured(completions: Sequence[ScoredRollout], teacher: str) -> Iterator[tuple[str, float]]:
    """What is known where there are completions, and arrays."""
    if completions:
        sampling, scored_by = active_logprobs(completions, teacher)
        if len(sampling):
            yield "reverse_kl", mean_over_tokens([sampling - scored_by])
        cut = [scored.rollout.finish_reason == "length" for scored in completions]
        yield "truncated_fraction", float(np.mean(cut))
    scores = [scored.scores[teacher] for scored in completions]
    for name, figure in (("topk_mass", topk_mass(scores)), ("topk_overlap", topk_overlap(scores))):
        if figure is not None:
            yield name, figure


def _weights(completions: Sequence[ScoredRollout], batches: Sequence[Batch]) -> dict[str, float]:
    """Teacher name to its part of the step's summed weights."""
    completion_of = {scored.key: scored for scored in completions}
    by_route: dict[tuple[tuple[str, float], ...], list[Datum]] = {}
    for datum in chain.from_iterable(batch.datums for batch in batches):
        by_route.setdefault(tuple(completion_of[datum.key].prompts.route.weights.items()), []).append(datum)
    weights: dict[str, float] = {}
    for datums in by_route.values():
        total = float(np.concatenate([datum.inputs["weights"] for datum in datums]).sum(dtype=np.float64))
        for name, share in completion_of[datums[0].key].mixture.items():
            weights[name] = weights.get(name, 0.0) + share * total
    return weights
