"""Losses that `prove_loss` must refuse, each wrong in one way; the first three were shipped in this field."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from distillkit import Array, Batch, Loss, NextTokenDivergence, Positions, ScoredRollout, TokenLoss
from helpers.proved_losses import FullForward, Sampled, TeacherTopK, forward_kl, reverse_kl


class TopKAsReward(TeacherTopK):
    """The top-K KL subtracted from the advantage of the sampled token: the same number whichever was sampled."""

    name: ClassVar[str] = "topk_as_reward"

    def reads(self) -> frozenset[str]:
        return frozenset({"logprobs", "at_ids"})

    def token_loss(self) -> TokenLoss:
        return topk_as_reward


def topk_as_reward(positions: Positions, options: Mapping[str, Any]) -> Tensor:
    student, teacher = positions.at(positions.inputs["ids"]).detach(), positions.inputs["teacher"]
    advantage = -(student.exp() * (student - teacher)).sum(-1)
    return -(positions.logprobs - positions.sampling_logprobs).exp() * advantage


class GapBackPropagated(Sampled):
    """`logp_student - logp_teacher` of the sampled token as the loss itself: a score function, zero on average."""

    name: ClassVar[str] = "gap_back_propagated"

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {"teacher": completion.teacher_logprobs}

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: positions.logprobs - positions.inputs["teacher"]


class TopKRenormalized(TeacherTopK):
    """The KL of the top K made to sum to 1, as if it were the KL."""

    name: ClassVar[str] = "topk_renormalized"

    def minimises(self) -> NextTokenDivergence | None:
        return reverse_kl

    def token_loss(self) -> TokenLoss:
        return topk_renormalized


def topk_renormalized(positions: Positions, options: Mapping[str, Any]) -> Tensor:
    student = positions.at(positions.inputs["ids"]).log_softmax(-1)
    return reverse_kl(student, positions.inputs["teacher"].log_softmax(-1))


class Variant(FullForward):
    """Another function in the place of the forward KL."""

    name: ClassVar[str] = "variant"
    function: ClassVar[TokenLoss]

    def token_loss(self) -> TokenLoss:
        return type(self).function


def variant(function: TokenLoss) -> Loss:
    return type(
        "Variant", (Variant,), {"function": staticmethod(function), "__module__": __name__, "__doc__": "One."}
    )()


def forward(positions: Positions) -> Tensor:
    return forward_kl(positions.student, positions.teacher)


def others_gradients(positions: Positions, options: object) -> Tensor:
    """The value depends on the position alone, its gradient on all."""
    mine = forward(positions)
    return mine + mine.mean() - mine.mean().detach()


class WeightsDetached(FullForward):
    """The reverse KL with constant weights: a gradient of zero at every position."""

    name: ClassVar[str] = "weights_detached"

    def minimises(self) -> NextTokenDivergence | None:
        return reverse_kl

    def token_loss(self) -> TokenLoss:
        return weights_detached


def weights_detached(positions: Positions, options: object) -> Tensor:
    student, teacher = positions.student, positions.teacher
    found: Tensor = (student.detach().exp() * (student - teacher)).sum(-1)
    return found


class WeightsDetachedUnclaimed(WeightsDetached):
    """Sees the teacher as a factor, claims nothing, and trains nothing."""

    def minimises(self) -> NextTokenDivergence | None:
        return None

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: (
            (positions.student.detach().exp() * positions.student).sum(-1) * positions.teacher.max(-1).values
        )


class ValueWithoutSize(WeightsDetached):
    """Rounding, of a loss that is 0 itself."""

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: (
            weights_detached(positions, options) - weights_detached(positions, options).detach()
        )


class NoGradientUntaught(WeightsDetachedUnclaimed):
    """Reads no teacher, either."""

    def needs(self) -> Mapping[str, int]:
        return {}

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: (positions.student.detach().exp() * positions.student).sum(-1)


class IgnoresTheTeacher(FullForward):
    """Goes to the uniform distribution, whoever teaches."""

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: reverse_kl(positions.student, torch.zeros_like(positions.student))


class SoftTeacher(FullForward):
    """To the teacher at temperature 2, and claims nothing."""

    def minimises(self) -> NextTokenDivergence | None:
        return None

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: forward_kl(positions.student, (positions.teacher / 2).log_softmax(-1))


class Unsaid(Sampled):
    """Reads what it does not say."""

    name: ClassVar[str] = "unsaid"
    what: str = Field("student", description="Of the positions.")

    def reads(self) -> frozenset[str]:
        return frozenset() if self.what == "logprobs" else frozenset({"logprobs"})

    def token_loss(self) -> TokenLoss:
        return unsaid


def unsaid(positions: Positions, options: Mapping[str, Any]) -> Tensor:
    ids = torch.zeros(len(positions.sampling_logprobs), 1, dtype=torch.int64)
    found: Tensor = positions.at(ids)[:, 0] if options["what"] == "at" else getattr(positions, str(options["what"]))
    return found if found.ndim == 1 else found[:, 0]


class ReadsATeacherUnsaid(Sampled):
    """Needs nothing, and is taught all the same."""

    def needs(self) -> Mapping[str, int]:
        return {}

    def minimises(self) -> NextTokenDivergence | None:
        return None


class Centred(Sampled):
    """Advantages less their mean over the completion, masked tokens and all."""

    def minimises(self) -> NextTokenDivergence | None:
        return None

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        made = super().inputs(completion)["advantages"]
        return {"advantages": np.nan_to_num(made) - np.nan_to_num(made).mean()}


class TwiceTheMixture(Sampled):
    """Right for one teacher, and twice as strong for two."""

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {"advantages": super().inputs(completion)["advantages"] * np.float32(len(completion.scores))}


class Ragged(FullForward):
    """As wide an input as the first token says."""

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        ids = completion.rollout.token_ids
        return {"wide": np.ones((len(ids), 1 + ids[0] % 2))}


class Growing(Sampled):
    """Twice as strong at each call."""

    _calls: list[int] = PrivateAttr(default_factory=list)

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        self._calls.append(1)
        return super().batch(scored)

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {"advantages": super().inputs(completion)["advantages"] * np.float32(2.0 ** (len(self._calls) - 1))}


class Infinite(FullForward):
    """Multiplies by the logarithm of zero."""

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: forward(positions) * -torch.zeros(1).log()


class ClaimsOneNumber(FullForward):
    """One number for all prefixes."""

    def minimises(self) -> NextTokenDivergence | None:
        return lambda student, teacher, sampling: forward_kl(student, teacher).mean()


class Peculiar(FullForward):
    """Needs what only its author knows."""

    def needs(self) -> Mapping[str, int]:
        return {"full": 1, "parse_tree": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"hidden": 8}


class OfServices(Sampled):
    """Has no code of its own."""

    def token_loss(self) -> TokenLoss | None:
        return None
