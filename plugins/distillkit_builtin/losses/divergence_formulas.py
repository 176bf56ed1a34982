r"""Divergences of two next-token distributions in torch: log-probabilities `s` of the student, `t` of the teacher.

    reverse:  KL(s || t) = sum_v s (log s - log t)
    forward:  KL(t || s)
    jsd:      beta KL(t || m) + (1 - beta) KL(s || m),  m = beta t + (1 - beta) s;  0: forward, 1: reverse
    skew:     KL(s || beta s + (1 - beta) t);  0: reverse

The sums run over the last axis, [n, K] to [n]. An outcome of probability 0 on both sides adds nothing, to value and
gradient; one that only the second of a KL lacks makes it infinite, as it is.

`jsd` is Agarwal et al., "On-Policy Distillation of Language Models", 2024, arXiv:2306.13649, with TRL's `beta`: its
limits are 0, so that 0 and 1 stand for the KLs themselves, as there. `skew` is the skew reverse KL of Ko et al.,
"DistiLLM", 2024, arXiv:2402.03898 (its alpha is `beta` here): at most `-log beta`, also of what no teacher gives.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from distillkit import Positions

LEAST_TAIL = 2.0**-20
"""The least mass of a tail, about 1e-6: what is less is rounding of the K logprobs, as is a mass of more than 1."""


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`sum p (log p - log q)` over the last axis."""
    gap = (log_p - log_q).masked_fill(log_p.isneginf(), 0)
    return (log_p.exp() * gap).sum(-1)


def mixed(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """`log(share p + (1 - share) q)`, for a share between 0 and 1; 0 where both are none, which `kl` leaves out."""
    neither = log_p.isneginf() & log_q.isneginf()
    p, q = log_p.masked_fill(neither, 0), log_q.masked_fill(neither, 0)
    return torch.logaddexp(p + math.log(share), q + math.log1p(-share))


def jsd(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Generalized Jensen-Shannon divergence."""
    if beta in (0, 1):
        return kl(student, teacher) if beta else kl(teacher, student)
    middle = mixed(teacher, student, beta)
    return beta * kl(teacher, middle) + (1 - beta) * kl(student, middle)


def skew(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """Skew reverse KL."""
    return kl(student, mixed(student, teacher, beta) if beta else teacher)


def between(direction: str, beta: float, student: Tensor, teacher: Tensor) -> Tensor:
    """The divergence of that `direction`."""
    if direction == "reverse":
        return kl(student, teacher)
    if direction == "forward":
        return kl(teacher, student)
    return {"jsd": jsd, "skew": skew}[direction](student, teacher, beta)


def with_tail(logprobs: Tensor) -> Tensor:
    """[n, K + 1]: the logprobs [n, K] and that of all other outcomes together, `log(1 - sum p)`."""
    mass = logprobs.exp().sum(-1, keepdim=True)
    return torch.cat([logprobs, torch.log1p(-mass.clamp(max=1 - LEAST_TAIL))], dim=-1)


def softened(logprobs: Tensor, temperature: float) -> Tensor:
    """Log-softmax at another temperature, of a log-softmax at 1."""
    return logprobs if temperature == 1 else torch.log_softmax(logprobs / temperature, dim=-1)


def entropy(logprobs: Tensor) -> Tensor:
    """[n] in nats."""
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isneginf(), 0)).sum(-1)


def at_support(positions: Positions, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Student and teacher of each position on a loss's `support`: [n, V], [n, K], or [n, K + 1] with their tails."""
    if options["support"] == "full":
        return positions.student, positions.teacher
    ids = positions.inputs["support_ids"]
    teacher = positions.inputs["support_logprobs"].masked_fill(ids < 0, -torch.inf)
    return _outcomes(positions.at(ids), teacher, options)


def of_tables(student: Tensor, teacher: Tensor, sampling: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The same of whole distributions [n, V]: outside of the support is none, or the tail [n, V + 1].

    Of one teacher: several have a top-K each.
    """
    support = options["support"]
    if support == "full":
        return student, teacher
    inside = torch.zeros_like(student, dtype=torch.bool)
    for side in {"teacher_topk": [teacher], "student_topk": [sampling], "union": [teacher, sampling]}[support]:
        inside.scatter_(-1, side.topk(min(options["k"], side.shape[-1])).indices, True)
    outside = ~inside
    return _outcomes(student.masked_fill(outside, -torch.inf), teacher.masked_fill(outside, -torch.inf), options)


def _outcomes(student: Tensor, teacher: Tensor, options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    return (with_tail(student), with_tail(teacher)) if options["tail"] else (student, teacher)
