r"""The importance-sampling loss of on-policy distillation.

For a sampled token t with sampling logprob q_t, teacher logprob p_t and current logprob l_t (natural log):

    advantage_t = scale * (p_t - q_t)
    loss_t      = -exp(min(l_t - q_t, ratio_log_cap)) * advantage_t

Its gradient at l_t = q_t is that of the sampled reverse KL, `E_q[log q - log p]`, in the policy-gradient form with the
per-token reward p_t - q_t and no discounting over later tokens ("On-Policy Distillation", Thinking Machines Lab, 2025;
Gu et al., "MiniLLM", 2024, arXiv:2306.08543). Left out: a baseline, and credit for later tokens. Of several teachers,
p_t is that of their mixture, `log sum_i w_i p_i`.

With `extrapolate` by a factor f from a reference r, p_t is replaced by `f p_t - (f - 1) r_t`: past the teacher, as seen
from the reference (arXiv:2602.12125, where f is the reward's scaling factor). With `anchor` of weight w to a policy a,
`w (a_t - q_t)` is added to the gap: the sampled reverse KL to that policy (arXiv:2604.08527). With `control`, every
token has one fixed advantage, so that nothing is learned from a teacher (arXiv:2608.31046): what such a run gains, a
teacher did not give.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from distillkit import Array, FloatArray, Loss, NextTokenDivergence, Positions, ScoredRollout, TokenLoss

RATIO_LOG_LIMIT = 20.0
"""Nats, a ratio of 5e8: the policy that trains is never so far from the one that sampled."""


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RatioGate(_Options):
    """What is done with tokens whose ratio of current to sampling probability is far from 1."""

    low: float = Field(0.5, gt=0, le=1, description="The least ratio that is let through as it is.")
    high: float = Field(2.0, ge=1, description="The largest ratio that is let through as it is.")
    action: Literal["zero", "cap"] = Field(
        "zero", description="zero: a token outside trains nothing; cap: it trains with the bound as its ratio."
    )


class Extrapolation(_Options):
    """A target beyond the teacher, as seen from a reference."""

    reference: str = Field(min_length=1, description="The teacher (its route value) that is the reference.")
    factor: float = Field(1.25, gt=0, description="1 is the teacher itself, 0 the reference; above 1 is beyond.")


class Anchor(_Options):
    """A policy that the student is held near."""

    to: str = Field("start", min_length=1, description="The teacher (its route value) that is this policy.")
    weight: float = Field(0.1, gt=0, description="Of the reverse KL to it; the teacher's has the weight 1.")


class ImportanceSampling(Loss):
    """Train on `teacher_logprob - sampling_logprob` of each sampled token, by importance sampling."""

    name: ClassVar[str] = "importance_sampling"

    scale: float = Field(1.0, gt=0, description="Multiplies the advantages.")
    ratio_log_cap: float = Field(
        RATIO_LOG_LIMIT,
        gt=0,
        allow_inf_nan=True,
        description="Cap of log(current / sampling probability) in the ratio.",
    )
    advantage_clip: float | None = Field(None, gt=0, description="Advantages are cut to plus or minus this; null: not.")
    ratio_gate: RatioGate | None = Field(
        None, description="For steps off policy: what is done with tokens whose ratio is far from 1; null: nothing."
    )
    extrapolate: Extrapolation | None = Field(
        None, description="A target beyond the teacher, as seen from a reference; null: the teacher itself."
    )
    anchor: Anchor | None = Field(None, description="A policy that the student is held near; null: none.")
    control: Literal["constant"] | None = Field(
        None, description="constant: `control_advantage` in the place of the teacher's, as a control; null: no control."
    )
    control_advantage: float = Field(-0.1, lt=0, description="Every token's advantage, in nats, under `control`.")

    @model_validator(mode="after")
    def _control_is_alone(self) -> Self:
        if self.control is not None and (self.extrapolate is not None or self.anchor is not None):
            raise ValueError("control: constant takes the place of every teacher; leave out extrapolate and anchor")
        return self

    def needs(self) -> Mapping[str, int]:
        """The sampled tokens' logprobs; nothing of teachers under `control`."""
        return {} if self.control is not None else super().needs()

    def max_teachers(self) -> int | None:
        """Any number: one mixture."""
        return None

    def references(self) -> tuple[str, ...]:
        """The teachers of `extrapolate` and `anchor`."""
        named = (
            None if self.extrapolate is None else self.extrapolate.reference,
            None if self.anchor is None else self.anchor.to,
        )
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def minimises(self) -> NextTokenDivergence | None:
        """`scale` times the reverse KL; nothing is claimed where advantages are clipped, or are not the teacher's."""
        other = self.advantage_clip is not None or self.control is not None or self.references()
        return None if other else partial(scaled_reverse_kl, scale=self.scale)

    def options(self) -> Mapping[str, JsonValue]:
        """`ratio_log_cap`, in nats, and the `ratio_gate`."""
        gate: dict[str, JsonValue] = {} if self.ratio_gate is None else {"ratio_gate": self.ratio_gate.model_dump()}
        return {"ratio_log_cap": self.ratio_log_cap, **gate}

    def options_without_effect(self) -> frozenset[str]:
        """A cap of `RATIO_LOG_LIMIT` or more: a student without the option trains the same."""
        return frozenset({"ratio_log_cap"}) if self.ratio_log_cap >= RATIO_LOG_LIMIT else frozenset()

    def token_loss(self) -> TokenLoss:
        """`importance_sampling`, below."""
        return importance_sampling

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        """`advantages` [R]: `scale * (teacher - sampling)`."""
        advantages = np.float32(self.scale) * self._gap(completion)
        if self.advantage_clip is not None:
            advantages = np.clip(advantages, -self.advantage_clip, self.advantage_clip)
        return {"advantages": advantages}

    def _gap(self, completion: ScoredRollout) -> FloatArray:
        """[R] nats, before scale and clip."""
        sampling = completion.rollout.logprobs
        if self.control is not None:
            return np.full_like(sampling, self.control_advantage)
        target = completion.teacher_logprobs
        if self.extrapolate is not None:
            reference = completion.references[self.extrapolate.reference].logprobs
            target = target + np.float32(self.extrapolate.factor - 1) * (target - reference)
        gap = target - sampling
        if self.anchor is not None:
            gap = gap + np.float32(self.anchor.weight) * (completion.references[self.anchor.to].logprobs - sampling)
        return gap


def importance_sampling(positions: Positions, options: Mapping[str, JsonValue]) -> Any:  # noqa: ANN401 - a torch tensor
    """`-exp(min(logprob - sampling_logprob, ratio_log_cap)) * advantage` [n], gradient through `logprob` only."""
    log_ratio = (positions.logprobs - positions.sampling_logprobs).clamp(max=options["ratio_log_cap"])
    return -gated(log_ratio, options.get("ratio_gate")) * positions.inputs["advantages"]


def gated(log_ratio: Any, gate: Any) -> Any:  # noqa: ANN401 - torch tensors, and the options of a `RatioGate`
    """The ratio [n] where it is between the bounds; outside 0, or the bound with the gradient of a ratio so large."""
    ratio = log_ratio.exp()
    if gate is None:
        return ratio
    low, high = gate["low"], gate["high"]
    bounded = ratio.detach().clamp(low, high)
    if gate["action"] == "cap":
        return bounded * (log_ratio - log_ratio.detach()).exp()  # 1; a ratio by itself may be 0, and is no number then
    return ratio * (bounded == ratio.detach())


def scaled_reverse_kl(student: Any, teacher: Any, sampling: Any, *, scale: float) -> Any:  # noqa: ANN401 - torch tensors
    """`scale * KL(student || teacher)` [n]."""
    return scale * (student.exp() * (student - teacher)).sum(-1)
