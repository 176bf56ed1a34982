"""The exact gradient of a divergence of next-token distributions, averaged over the student's prefixes."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from distillkit.errors import PluginError
from distillkit.positions import NextTokenDivergence
from distillkit.testing.loss_proof.tables import Policies


def divergence_gradient(divergence: NextTokenDivergence, policies: Policies) -> Tensor:
    """[1 + V, V] by the student's table; how often it writes each prefix is held constant.

    Raises PluginError for a function that gives anything but a finite number a prefix.
    """
    logits = torch.tensor(policies.student).requires_grad_()
    student, teacher = torch.log_softmax(logits, dim=-1), torch.tensor(policies.mixture)
    found = divergence(student, teacher, student.detach())
    shape = tuple(getattr(found, "shape", ()))
    if shape != (len(logits),):
        raise PluginError(
            f"its minimises() gives a function that returns {type(found).__name__} {[*shape]} for {len(logits)} "
            "prefixes, not the divergence at each"
        )
    if not torch.isfinite(found).all():
        raise PluginError("its minimises() gives a divergence that is not finite for distributions without zeros")
    (gradient,) = torch.autograd.grad((found * torch.tensor(policies.reach)).sum(), logits, allow_unused=True)
    return torch.zeros_like(logits) if gradient is None else gradient


def usual_divergences(k: int) -> Iterator[tuple[str, NextTokenDivergence]]:
    """What a loss is often taken for, by name: full ones, and those of the top K without their tail (K of 0: not)."""
    yield "reverse KL", _reverse
    yield "forward KL", _forward
    if k:
        for whose, support in (("teacher's", _of_teacher), ("student's", _of_sampler)):
            for name, inner in (("reverse KL", _reverse), ("forward KL", _forward)):
                yield (
                    f"{name} over the {whose} {k} most probable tokens alone, renormalized (the mass outside of them, "
                    "the tail, is left out: keep it as one more outcome)",
                    partial(_renormalized, inner=inner, support=support, k=k),
                )


def _reverse(student: Tensor, teacher: Tensor, sampling: Tensor) -> Tensor:
    return (student.exp() * (student - teacher)).sum(-1)


def _forward(student: Tensor, teacher: Tensor, sampling: Tensor) -> Tensor:
    return (teacher.exp() * (teacher - student)).sum(-1)


def _of_teacher(student: Tensor, teacher: Tensor, sampling: Tensor) -> Tensor:
    return teacher


def _of_sampler(student: Tensor, teacher: Tensor, sampling: Tensor) -> Tensor:
    return sampling


def _renormalized(
    student: Tensor,
    teacher: Tensor,
    sampling: Tensor,
    *,
    inner: NextTokenDivergence,
    support: NextTokenDivergence,
    k: int,
) -> Tensor:
    ids = support(student, teacher, sampling).topk(k, dim=-1).indices
    found: Tensor = inner(*(torch.log_softmax(each.gather(-1, ids), dim=-1) for each in (student, teacher, sampling)))
    return found
