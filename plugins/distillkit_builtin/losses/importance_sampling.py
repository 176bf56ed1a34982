r"""The importance-sampling loss of on-policy distillation.

For a sampled token t with sampling logprob q_t, teacher logprob p_t and current logprob l_t (natural log):

    advantage_t = scale * (p_t - q_t)
    loss_t      = -exp(min(l_t - q_t, ratio_log_cap)) * advantage_t

Its gradient at l_t = q_t is that of the sampled reverse KL, `E_q[log q - log p]`, in the policy-gradient form with the
per-token reward p_t - q_t and no discounting over later tokens ("On-Policy Distillation", Thinking Machines Lab, 2025;
Gu et al., "MiniLLM", 2024, arXiv:2306.08543). Left out: a baseline, and credit for later tokens.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, JsonValue

from distillkit import Array, Loss, NextTokenDivergence, Positions, ScoredRollout, TokenLoss

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

    def minimises(self) -> NextTokenDivergence | None:
        """`scale` times the reverse KL; nothing is claimed where advantages are clipped."""
        return None if self.advantage_clip is not None else partial(scaled_reverse_kl, scale=self.scale)

    def options(self) -> Mapping[str, JsonValue]:
        """`ratio_log_cap`, in nats."""
        return {"ratio_log_cap": self.ratio_log_cap}

    def options_without_effect(self) -> frozenset[str]:
        """A cap of `RATIO_LOG_LIMIT` or more: a student without the option trains the same."""
        return frozenset({"ratio_log_cap"}) if self.ratio_log_cap >= RATIO_LOG_LIMIT else frozenset()

    def token_loss(self) -> TokenLoss:
        """`importance_sampling`, below."""
        return importance_sampling

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        """`advantages` [R]: `scale * (teacher - sampling)`."""
        advantages = np.float32(self.scale) * (completion.teacher_logprobs - completion.rollout.logprobs)
        if self.advantage_clip is not None:
            advantages = np.clip(advantages, -self.advantage_clip, self.advantage_clip)
        return {"advantages": advantages}


def importance_sampling(positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
    """`-exp(min(logprob - sampling_logprob, ratio_log_cap)) * advantage` [n], gradient through `logprob` only."""
    log_ratio = (positions.logprobs - positions.sampling_logprobs).clamp(max=options["ratio_log_cap"])
    return -log_ratio.exp() * positions.inputs["advantages"]


def scaled_reverse_kl(student: Any, teacher: Any, sampling: Any, *, scale: float) -> Any:  # noqa: ANN401 - torch tensors
    """`scale * KL(student || teacher)` [n]."""
    return scale * (student.exp() * (student - teacher)).sum(-1)
