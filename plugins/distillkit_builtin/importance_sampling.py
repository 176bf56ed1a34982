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

from distillkit import Loss
from distillkit.types import Batch, Datum, FloatArray, ScoredRollout, frozen_array


class ImportanceSampling(Loss):
    """Train on `teacher_logprob - sampling_logprob` of each sampled token, by importance sampling."""

    name: ClassVar[str] = "importance_sampling"
    loss_function: ClassVar[str] = "importance_sampling"

    scale: float = Field(1.0, gt=0, description="Multiplies the advantages.")
    ratio_log_cap: float = Field(
        20.0, gt=0, allow_inf_nan=True, description="Cap of log(current / sampling probability) in the ratio."
    )
    advantage_clip: float | None = Field(None, gt=0, description="Advantages are cut to plus or minus this; null: not.")
    normalization: Literal["token_mean", "sequence_mean", "sum"] = Field(
        "token_mean",
        description="What the summed loss is divided by, over a whole optimizer step: its tokens; each completion's "
        "tokens and the completions; nothing.",
    )

    def options(self) -> Mapping[str, float]:
        """What the loss function itself needs to know."""
        return {"ratio_log_cap": self.ratio_log_cap}

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """Advantages and weights of every token; all of them 0 where the mask drops a token."""
        lengths = [int(one.rollout.active.sum()) for one in scored]
        total, count = sum(lengths), sum(length > 0 for length in lengths)
        datums = [
            self._datum(one, self._weight(length, total, count)) for one, length in zip(scored, lengths, strict=True)
        ]
        return Batch(self.loss_function, self.options(), tuple(datums))

    def advantages(self, one: ScoredRollout) -> FloatArray:
        """[R] `scale * (teacher - sampling)` at active tokens, 0 elsewhere."""
        (score,) = one.scores.values()
        gap = np.where(one.rollout.active, score.logprobs - one.rollout.logprobs, np.float32(0))
        advantages = np.float32(self.scale) * gap
        if self.advantage_clip is not None:
            advantages = np.clip(advantages, -self.advantage_clip, self.advantage_clip)
        result: FloatArray = frozen_array(advantages, np.float32)
        return result

    def _weight(self, length: int, total: int, count: int) -> float:
        if self.normalization == "sum" or not length:
            return 1.0
        return 1.0 / total if self.normalization == "token_mean" else 1.0 / (length * count)

    def _datum(self, one: ScoredRollout, weight: float) -> Datum:
        active = one.rollout.active
        return Datum(
            key=one.key,
            prompt_ids=one.rollout.request.prompt_ids,
            response_ids=one.rollout.token_ids,
            inputs={
                "sampling_logprobs": frozen_array(np.where(active, one.rollout.logprobs, 0.0), np.float32),
                "advantages": self.advantages(one),
                "weights": frozen_array(np.where(active, weight, 0.0), np.float32),
            },
        )
