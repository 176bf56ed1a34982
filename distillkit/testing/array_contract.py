"""What samplers and scorers owe the engine where they claim more than the sampled tokens: `topk`, `at_ids`, `entropy`.

Shapes are checked by `Rollout` and `Score`; here it is whether the numbers fit each other.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from distillkit.arrays import Array, FloatArray, IntArray
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.roles.plugin import Plugin
from distillkit.testing.builders import require
from distillkit.token_arrays import NO_ID

SMALL = 5
"""How many of the most probable tokens are asked for, where so many can be had."""
ROUNDING = 1e-3
"""Nats by which numbers of one answer may differ that are of one distribution."""


def smallest(limits: Mapping[str, int | None], name: str) -> int:
    """How many of a capability are asked for: `SMALL`, or less where the limit is less; 0 where it is not offered."""
    limit = limits.get(name, 0)
    return SMALL if limit is None else min(SMALL, limit)


def sampling_wants(capabilities: Mapping[str, int | None]) -> dict[str, int]:
    """What a sampler is asked for besides, as `SampleRequest.wanted`."""
    wanted = {"topk": smallest(capabilities, "topk"), "entropy": min(1, smallest(capabilities, "entropy"))}
    return {name: amount for name, amount in wanted.items() if amount}


def scoring_wants(capabilities: Mapping[str, int | None], request: ScoreRequest) -> ScoreRequest:
    """The request with what the scorer claims: some of `topk`, and as `at_ids` the sampled ids beside none at all."""
    ids, width = request.token_ids, min(2, smallest(capabilities, "at_ids"))
    table = np.stack([ids, np.full_like(ids, NO_ID)], axis=1)[:, :width] if width else None
    return replace(request, topk=smallest(capabilities, "topk"), at_ids=table)


def check_rollout_arrays(sampler: Plugin, rollout: Rollout) -> None:
    """Raise PluginError where the arrays of a completion do not fit its logprobs, or each other."""
    arrays, wanted = rollout.arrays, rollout.request.wanted
    if "topk" in wanted:
        _check_topk(sampler, rollout.at_active(rollout.token_ids), rollout.at_active(rollout.logprobs), rollout)
    if "entropy" in wanted:
        entropy = rollout.at_active(arrays["entropy"])
        fine = np.isfinite(entropy) & (entropy >= -ROUNDING)
        require(fine.all(), sampler, f"gave an entropy that is none: {entropy[~fine][:1]}")
    if wanted.keys() >= {"topk", "entropy"}:
        logprobs = rollout.at_active(arrays["topk_logprobs"])
        part = -(np.exp(logprobs) * np.where(np.isfinite(logprobs), logprobs, 0)).sum(axis=1)
        require(
            (part <= entropy + ROUNDING).all(), sampler, "gave an entropy that is less than that of its top-k alone"
        )


def check_score_arrays(scorer: Plugin, score: Score) -> None:
    """Raise PluginError where the arrays of a score do not fit its logprobs."""
    asked = score.request
    if asked.topk:
        _check_topk(scorer, asked.token_ids, score.logprobs, score)
    if asked.at_ids is None:
        return
    found = score.arrays["at_logprobs"]
    apart = float(np.abs(found[:, 0] - score.logprobs).max())
    require(
        apart <= ROUNDING, scorer, f"gave at_logprobs of the sampled ids {apart:.3g} nats from the logprobs of the same"
    )
    none = found[asked.at_ids == NO_ID]
    require((none == -np.inf).all(), scorer, f"gave an id of {NO_ID}, which is none, the logprob {none[:1]}")


def _check_topk(plugin: Plugin, ids: IntArray, logprobs: FloatArray, value: Rollout | Score) -> None:
    """`ids` [R] and their `logprobs` [R] against the value's `topk_ids` and `topk_logprobs` [R, K]."""
    at_active = value.at_active if isinstance(value, Rollout) else _all
    likely, highest = at_active(value.arrays["topk_ids"]), at_active(value.arrays["topk_logprobs"])
    there = likely != NO_ID
    require(np.isfinite(highest[there]).all(), plugin, "gave topk_logprobs that are no finite numbers")
    require((highest[~there] == -np.inf).all(), plugin, f"gave an id of {NO_ID} in topk_ids another logprob than -inf")
    falls = (highest[:, 1:] <= highest[:, :-1] + ROUNDING) | ~there[:, 1:]
    require(falls.all(), plugin, "gave topk_logprobs that do not fall: the most probable token comes first")
    mass = float(np.exp(highest.astype(np.float64)).sum(axis=1).max(initial=0))
    require(mass <= 1 + ROUNDING, plugin, f"gave top-k tokens of the probability {mass:.4f} together")
    ordered = np.sort(likely, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ID)
    require(not twice.any(), plugin, f"gave the id {ordered[:, 1:][twice][:1]} twice in topk_ids of one position")
    same = likely == ids[:, None]
    apart = float(np.abs(np.where(same, highest - logprobs[:, None], 0)).max(initial=0))
    require(apart <= ROUNDING, plugin, f"gave a sampled token another logprob in topk_logprobs ({apart:.3g} nats)")
    missed = ~same.any(axis=1) & (logprobs > highest[:, -1] + ROUNDING)
    require(not missed.any(), plugin, "left a sampled token out of topk_ids that is more probable than those in it")


def _all(values: Array) -> Array:
    return values
