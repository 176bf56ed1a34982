"""How much each token of an optimizer step counts: its normalization times what the weightings say.

The normalization counts active tokens before any weighting, so that one which leaves tokens out makes the others no
heavier; `weights/kept_fraction` says what is left.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from distillkit.arrays import FloatArray
from distillkit.config.train_config import Normalization
from distillkit.errors import PluginError
from distillkit.records import ScoredRollout
from distillkit.roles.attribution import attribute_to, named
from distillkit.roles.returned import broken, require_returned
from distillkit.roles.weighting import Weighting


@dataclass(frozen=True, slots=True, eq=False)
class StepWeights:
    """The weights of one optimizer step's completions, in their order."""

    arrays: Sequence[FloatArray]
    """[R] of each completion; 0 where a token does not count."""
    metrics: Mapping[str, float]
    """`weights/<weighting>` and `weights/kept_fraction`; nothing where no weighting is chosen."""


def step_weights(
    scored: Sequence[ScoredRollout], normalization: Normalization, weightings: Sequence[Weighting]
) -> StepWeights:
    """The weight of each token of `scored`. Raises PluginError for a weighting that gives something else."""
    norms = normalization_weights(scored, normalization)
    if not weightings or not (whole := _total(norms)):
        return StepWeights(norms, {})
    arrays, metrics = norms, {}
    for weighting in weightings:
        factors = weighed(weighting, scored)
        metrics[f"weights/{weighting.name}"] = _total(_product(norms, factors)) / whole
        arrays = _product(arrays, factors)
    return StepWeights(arrays, {**metrics, "weights/kept_fraction": _total(arrays) / whole})


def normalization_weights(scored: Sequence[ScoredRollout], normalization: Normalization) -> list[FloatArray]:
    """[R] of each completion what its active tokens count without weightings; 0 where a token is not active."""
    rollouts = [completion.rollout for completion in scored]
    lengths = [rollout.active_count for rollout in rollouts]
    total, sequences = sum(lengths), sum(length > 0 for length in lengths)
    routes_of = [frozenset(completion.prompts.route.weights) for completion in scored]
    of_route = Counter[frozenset[str]]()
    for route, length in zip(routes_of, lengths, strict=True):
        of_route[route] += length
    routes = sum(tokens > 0 for tokens in of_route.values())

    def weight(route: frozenset[str], length: int) -> float:
        if not length or normalization == "sum":
            return 1.0
        if normalization == "token_mean":
            return 1.0 / total
        if normalization == "sequence_mean":
            return 1.0 / (length * sequences)
        return 1.0 / (of_route[route] * routes)

    weights = [weight(route, length) for route, length in zip(routes_of, lengths, strict=True)]
    sizes = [len(rollout.token_ids) for rollout in rollouts]
    step = np.repeat(np.array(weights, np.float32), sizes)
    step.setflags(write=False)  # so that a datum need not copy what is cut from it
    arrays = [step[start:end] for start, end in pairwise([0, *accumulate(sizes)])]
    return [a if r.mask is None else np.where(r.mask, a, np.float32(0)) for r, a in zip(rollouts, arrays, strict=True)]


def weighed(weighting: Weighting, scored: Sequence[ScoredRollout]) -> list[FloatArray]:
    """What a weighting gives for a step, [R] a completion. Raises PluginError unless it is what its role promises."""
    with attribute_to(weighting, "in weigh()"):
        weights = weighting.weigh(scored)
    require_returned(weighting, weights, (Sequence, np.ndarray), "weigh()")
    given = [_array_of(weighting, each) for each in weights]
    if len(given) != len(scored):
        raise PluginError(f"{named(weighting)}: weigh() gave {len(given)} arrays for {len(scored)} completions")
    for array, completion in zip(given, scored, strict=True):
        rollout = completion.rollout
        if array.shape != rollout.token_ids.shape:
            raise PluginError(
                f"{named(weighting)}: weigh() gave {completion.key} an array of the shape {list(array.shape)} for "
                f"{len(rollout.token_ids)} tokens"
            )
        active = rollout.at_active(array)
        if not (np.isfinite(active) & (active >= 0)).all():
            raise PluginError(
                f"{named(weighting)}: weigh() gave {completion.key} a weight of "
                f"{active[~(np.isfinite(active) & (active >= 0))][0]}; weights are finite and at least 0"
            )
    return given


def _array_of(weighting: Weighting, weights: object) -> FloatArray:
    try:
        return np.asarray(weights, np.float32)
    except (TypeError, ValueError) as error:
        what = f"returned {type(weights).__name__} for a completion, not an array of numbers"
        raise broken(weighting, "weigh()", what) from error


def _product(arrays: Sequence[FloatArray], factors: Sequence[FloatArray]) -> list[FloatArray]:
    """Products where the first is not 0: what stands behind a mask may be no number."""
    return [a * np.where(a != 0, b, np.float32(0)) for a, b in zip(arrays, factors, strict=True)]


def _total(arrays: Sequence[FloatArray]) -> float:
    return float(sum(float(array.sum(dtype=np.float64)) for array in arrays))
