"""Small losses that keep what they say, for `prove_loss`, and the pieces that broken ones are made of."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from distillkit import Array, Loss, NextTokenDivergence, Positions, ScoredRollout, TokenLoss


def reverse_kl(student: Tensor, teacher: Tensor, sampling: Any = None) -> Tensor:
    return (student.exp() * (student - teacher)).sum(-1)


def forward_kl(student: Tensor, teacher: Tensor, sampling: Any = None) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(-1)


def with_tail(logprobs: Tensor) -> Tensor:
    """[n, K] to [n, K + 1]: what the K leave is one more outcome, if hardly any."""
    return torch.cat([logprobs, torch.log1p(-logprobs.exp().sum(-1, keepdim=True).clamp(max=1 - 1e-12))], dim=-1)


def reverse_kl_at_teachers(student: Tensor, teacher: Tensor, sampling: Tensor, *, k: int) -> Tensor:
    ids = teacher.topk(k, dim=-1).indices
    return reverse_kl(with_tail(student.gather(-1, ids)), with_tail(teacher.gather(-1, ids)))


def reverse_kl_at_students(student: Tensor, teacher: Tensor, sampling: Tensor, *, k: int) -> Tensor:
    ids = sampling.topk(k, dim=-1).indices
    return reverse_kl(with_tail(student.gather(-1, ids)), with_tail(teacher.gather(-1, ids)))


class FullForward(Loss):
    """The forward KL of whole distributions, of any number of teachers."""

    name: ClassVar[str] = "full_forward"

    def needs(self) -> Mapping[str, int]:
        return {"full": 1}

    def reads(self) -> frozenset[str]:
        return frozenset({"distribution"})

    def max_teachers(self) -> int | None:
        return None

    def minimises(self) -> NextTokenDivergence | None:
        return forward_kl

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: forward_kl(positions.student, positions.teacher)


class TeacherTopK(Loss):
    """The reverse KL of the teacher's top K and their tail."""

    name: ClassVar[str] = "teacher_topk"
    k: int = Field(20, ge=2, description="How many.")

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": self.k}

    def reads(self) -> frozenset[str]:
        return frozenset({"at_ids"})

    def minimises(self) -> NextTokenDivergence | None:
        return partial(reverse_kl_at_teachers, k=self.k)

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        (score,) = completion.scores.values()
        return {"ids": score.arrays["topk_ids"], "teacher": score.arrays["topk_logprobs"]}

    def token_loss(self) -> TokenLoss:
        return teacher_topk


def teacher_topk(positions: Positions, options: Mapping[str, Any]) -> Tensor:
    student, teacher = positions.at(positions.inputs["ids"]), positions.inputs["teacher"]
    return reverse_kl(with_tail(student), with_tail(teacher))


class StudentTopK(TeacherTopK):
    """The same at the top K of the policy that sampled."""

    name: ClassVar[str] = "student_topk"

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "at_ids": self.k}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": self.k}

    def minimises(self) -> NextTokenDivergence | None:
        return partial(reverse_kl_at_students, k=self.k)

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        (score,) = completion.scores.values()
        return {"ids": completion.rollout.arrays["topk_ids"], "teacher": score.arrays["at_logprobs"]}


class UnionTopK(StudentTopK):
    """At the ids that all teachers were asked for: of several teachers the union of everybody's top K."""

    name: ClassVar[str] = "union_topk"

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": self.k, "at_ids": self.k}

    def max_teachers(self) -> int | None:
        return None

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        shares, scores = completion.mixture, completion.scores
        parts = [np.log(shares[name]) + score.arrays["at_logprobs"] for name, score in scores.items()]
        (ids, *_) = (score.request.at_ids for score in scores.values())
        padding = ((0, 0), (0, 3 * self.k - ids.shape[1]))
        logprobs = np.pad(np.logaddexp.reduce(parts), padding, constant_values=-np.inf)
        return {"ids": np.pad(ids, padding, constant_values=-1), "teacher": logprobs}

    def token_loss(self) -> TokenLoss:
        return union_topk


def union_topk(positions: Positions, options: Mapping[str, Any]) -> Tensor:
    ids = positions.inputs["ids"]
    student, teacher = with_tail(positions.at(ids)), with_tail(positions.inputs["teacher"])
    counted = torch.cat([ids >= 0, torch.ones(len(ids), 1, dtype=torch.bool)], dim=-1)
    return (student.exp() * (student - teacher).masked_fill(~counted, 0.0)).sum(-1)


class Sampled(Loss):
    """The sampled reverse KL, as a gradient through the sampled token's logprob; takes a mixture."""

    name: ClassVar[str] = "sampled"

    def max_teachers(self) -> int | None:
        return 2

    def minimises(self) -> NextTokenDivergence | None:
        return reverse_kl

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {"advantages": completion.teacher_logprobs - completion.rollout.logprobs}

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: -positions.logprobs * positions.inputs["advantages"]


class EntropyAware(Sampled):
    """Reverse KL where the student is sure, and nothing where it is not; reads the entropy of both policies."""

    name: ClassVar[str] = "entropy_aware_sampled"

    def sampler_needs(self) -> Mapping[str, int]:
        return {"entropy": 1}

    def reads(self) -> frozenset[str]:
        return frozenset({"logprobs", "entropy"})

    def minimises(self) -> NextTokenDivergence | None:
        return sure_reverse_kl

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {**super().inputs(completion), "entropy": completion.rollout.arrays["entropy"]}

    def token_loss(self) -> TokenLoss:
        return sure_sampled


def sure_reverse_kl(student: Tensor, teacher: Tensor, sampling: Tensor) -> Tensor:
    return (-(sampling.exp() * sampling).sum(-1) < 1.3) * reverse_kl(student, teacher)


def sure_sampled(positions: Positions, options: Mapping[str, Any]) -> Tensor:
    inputs = positions.inputs
    sure = (inputs["entropy"] < 1.3) & (positions.entropy.detach() < 1.3)
    return -sure.double() * positions.logprobs * inputs["advantages"]


class Constant(Sampled):
    """One advantage for all tokens: reads no teacher."""

    name: ClassVar[str] = "constant"

    def needs(self) -> Mapping[str, int]:
        return {}

    def minimises(self) -> NextTokenDivergence | None:
        return None

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {"advantages": np.full(len(completion.rollout.token_ids), -0.5)}
