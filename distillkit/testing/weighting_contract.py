"""What a weighting owes the engine: a number of at least 0 for each token that the policy sampled, always the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distillkit.arrays import FloatArray, logprob_array
from distillkit.loop.token_weights import weighed
from distillkit.records import ScoredRollout
from distillkit.roles.weighting import Weighting
from distillkit.testing.builders import make_rollout, make_row, require
from distillkit.testing.synthetic_batches import score_rollout

MASKS: Sequence[Sequence[bool] | None] = (None, [True, False, True, False], None, [False, False], None)
"""Of the made-up completions: one has tokens between that the policy did not sample, and one has no other."""
BEHIND_MASK = -7.0
"""What a teacher may say of a token that the policy did not sample."""


def check_weighting(weighting: Weighting, scored: Sequence[ScoredRollout] = ()) -> None:
    """Weigh `scored` (none: made-up completions) with an open weighting, and look at what comes back.

    Raises PluginError unless there is an array a completion, in their order, of a number for each token, finite and at
    least 0 where the policy sampled the token; the same when asked again; and the same whatever stands behind masks.
    """
    step = scored or make_step(weighting)
    first, again = weighed(weighting, step), weighed(weighting, step)
    require(_same(step, first, again), weighting, "weighs the same step in two ways; `weigh` must be pure")
    if not scored:
        other = weighed(weighting, make_step(weighting, behind_mask=BEHIND_MASK))
        told = "lets a weight depend on numbers behind a mask, which are none: look at `rollout.at_active(...)`"
        require(_same(step, first, other), weighting, told)
    for completion in step:
        if completion.rollout.active_count:
            weighed(weighting, [completion])


def _same(step: Sequence[ScoredRollout], first: Sequence[FloatArray], second: Sequence[FloatArray]) -> bool:
    pairs = zip(step, first, second, strict=True)
    return all(np.array_equal(each.rollout.at_active(a), each.rollout.at_active(b)) for each, a, b in pairs)


def make_step(weighting: Weighting, behind_mask: float = -1.0) -> list[ScoredRollout]:
    """Completions of several lengths, ends, masks and teachers, with what `weighting` needs of sampler and scorers.

    Teachers give tokens behind a mask the logprob `behind_mask`.
    """
    ids: Sequence[Sequence[int]] = (
        [65, 66, 67, 68, 65, 66, 67, 68, 65, 66],
        [70, 71, 72, 73],
        [74],
        [75, 76],
        [77, 77],
    )
    rows = [make_row(f"question {line}", line=line) for line in range(1, len(ids) + 1)]
    step = []
    for place, (row, tokens, mask) in enumerate(zip(rows, ids, MASKS, strict=True)):
        logprobs = -0.25 * (1 + np.arange(len(tokens)) % 5)
        rollout = make_rollout(tokens, logprobs, row=row, mask=mask)
        rollout = replace(rollout, finish_reason="length" if place == 0 else "stop")
        theirs = np.where(rollout.active, 1.5 * rollout.logprobs, behind_mask)
        step.append(score_rollout(rollout, row, logprob_array(theirs), weighting, teachers=1 + place % 2))
    return step
