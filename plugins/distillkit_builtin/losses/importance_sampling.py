r"""The importance-sampling loss of on-policy distillation.

For a sampled token t with sampling logprob q_t, teacher logprob p_t and current logprob l_t (natural log):

    advantage_t = scale * (p_t - q_t)
    loss_t      = -exp(min(l_t - q_t, ratio_log_cap)) * advantage_t

Its gradient at l_t = q_t is that of the sampled reverse KL, `E_q[log q - log p]`, in the policy-gradient form with the
per-token reward p_t - q_t and no discounting over later tokens ("On-Policy Distillation", Thinking Machines Lab, 2025;
Gu et al., "MiniLLM", 2024, arXiv:2306.08543). Left out: a baseline, and credit for later tokens.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from distillkit import Batch, Datum, FloatArray, Loss, Rollout, ScoredRollout, logprob_array

RATIO_LOG_LIMIT = 20.0
"""Nats, a ratio of 5e8: the policy that trains is never so far from the one that sampled."""


class ImportanceSampling(Loss):
    """Train on `teacher_logprob - sampling_logprob` of each sampled token, by importance sampling."""

    name: ClassVar[str] = "importance_sampling"
    loss_function: ClassVar[str] = "importance_sampling"

    scale: float = Field(1.0, gt=0, description="Multiplies the advantages.")
    ratio_log_cap: float = Field(
        RATIO_LOG_LIMIT,
        gt=0,
        allow_inf_nan=True,
        description="Cap of log(current / sampling probability) in the ratio.",
    )
    advantage_clip: float | None = Field(None, gt=0, description="Advantages are cut to plus or minus this; null: not.")
    normalization: Literal["token_mean", "sequence_mean", "sum"] = Field(
        "token_mean",
        description="What the summed loss is divided by, over a whole optimizer step: its tokens; each completion's "
        "tokens and the completions; nothing.",
    )

    def options(self) -> Mapping[str, float]:
        """`ratio_log_cap`, in nats."""
        return {"ratio_log_cap": self.ratio_log_cap}

    def options_without_effect(self) -> frozenset[str]:
        """A cap of `RATIO_LOG_LIMIT` or more: a student without the option trains the same."""
        return frozenset({"ratio_log_cap"}) if self.ratio_log_cap >= RATIO_LOG_LIMIT else frozenset()

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """Advantages and weights of every token; all of them 0 where the mask drops a token."""
        lengths = [completion.rollout.active_count for completion in scored]
        total, count = sum(lengths), sum(length > 0 for length in lengths)
        datums = [
            self._datum(completion, self._weight(length, total, count))
            for completion, length in zip(scored, lengths, strict=True)
        ]
        return Batch(self.loss_function, self.options(), tuple(datums))

    def advantages(self, completion: ScoredRollout) -> FloatArray:
        """[R] `scale * (teacher - sampling)` at active tokens, 0 elsewhere."""
        (score,) = completion.scores.values()
        advantages = np.float32(self.scale) * _or_zero(completion.rollout, score.logprobs - completion.rollout.logprobs)
        if self.advantage_clip is not None:
            advantages = np.clip(advantages, -self.advantage_clip, self.advantage_clip)
        return logprob_array(advantages)

    def _weight(self, length: int, total: int, count: int) -> float:
        if self.normalization == "sum" or not length:
            return 1.0
        return 1.0 / total if self.normalization == "token_mean" else 1.0 / (length * count)

    def _datum(self, completion: ScoredRollout, weight: float) -> Datum:
        rollout = completion.rollout
        weights = np.full(len(rollout.token_ids), weight, np.float32)
        return Datum(
            key=completion.key,
            prompt_ids=rollout.request.prompt_ids,
            response_ids=rollout.token_ids,
            inputs={
                "sampling_logprobs": logprob_array(_or_zero(rollout, rollout.logprobs)),
                "advantages": self.advantages(completion),
                "weights": logprob_array(_or_zero(rollout, weights)),
            },
        )


def _or_zero(rollout: Rollout, values: FloatArray) -> FloatArray:
    """[R] `values` at active tokens, 0 elsewhere."""
    return values if rollout.mask is None else np.where(rollout.mask, values, np.float32(0))
