r"""A share of the step's tokens: where the student is uncertain, where it is far from its teacher, or either.

Over the active tokens of an optimizer step, with the entropy h_t of the policy that sampled (nats), sampling logprob
q_t and teacher logprob p_t (natural log):

    d_t = |p_t - q_t|
    s_t = h_t                         by: entropy
    s_t = d_t                         by: gap
    s_t = H_t + D_t - H_t * D_t       by: either, where H_t and D_t are h_t and d_t, each scaled to 0..1 over the step
    w_t = 1 for the round(share * tokens) tokens, at least one, with the largest s_t, 0 for the others

Of tokens with the same s_t, the earlier ones in data order are kept. Informative tokens are those of high entropy, and
those of low entropy where student and teacher disagree, which entropy alone misses (Xu et al., "TIP: Token Importance
in On-Policy Distillation", 2026, arXiv:2604.14084: half of the tokens by entropy train as well as all; `either` is its
soft or). Otherwise than there, a step is an optimizer step and not a micro-batch, and the disagreement is that of the
sampled token, which every scorer gives, in the place of a divergence of whole distributions.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from distillkit import FloatArray, ScoredRollout, Weighting


class Entropy(Weighting):
    """Only a share of the step's tokens: where the student is uncertain, or far from its teacher."""

    name: ClassVar[str] = "entropy"

    share: float = Field(0.5, gt=0, le=1, description="The share of a step's tokens that counts.")
    by: Literal["entropy", "gap", "either"] = Field(
        "entropy",
        description="entropy: tokens of the highest entropy of the policy that sampled; gap: with the largest "
        "|teacher_logprob - sampling_logprob|; either: high in one of the two.",
    )

    def sampler_needs(self) -> Mapping[str, int]:
        """`entropy`, unless it goes by the gap alone."""
        return {} if self.by == "gap" else {"entropy": 1}

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion: 1 where a token is kept, else 0."""
        scores = self._scores(step)
        kept = np.zeros(len(scores), np.float32)
        kept[np.argsort(-scores, kind="stable")[: max(1, round(self.share * len(scores)))]] = 1
        weights, start = [], 0
        for completion in step:
            active = completion.rollout.active
            mine = np.zeros(len(active), np.float32)
            mine[active] = kept[start : start + active.sum()]
            weights.append(mine)
            start += int(active.sum())
        return weights

    def _scores(self, step: Sequence[ScoredRollout]) -> FloatArray:
        """[n] of the step's active tokens, laid end to end."""
        if self.by == "entropy":
            return _entropies(step)
        if self.by == "gap":
            return _gaps(step)
        entropy, gap = _scaled(_entropies(step)), _scaled(_gaps(step))
        return entropy + gap - entropy * gap


def _entropies(step: Sequence[ScoredRollout]) -> FloatArray:
    rollouts = [completion.rollout for completion in step]
    return np.concatenate([rollout.at_active(rollout.arrays["entropy"]) for rollout in rollouts])


def _gaps(step: Sequence[ScoredRollout]) -> FloatArray:
    return np.concatenate(
        [
            np.abs(each.rollout.at_active(each.teacher_logprobs) - each.rollout.at_active(each.rollout.logprobs))
            for each in step
        ]
    )


def _scaled(values: FloatArray) -> FloatArray:
    """Between 0 and 1, in the same order; all 0 where they are all the same."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
