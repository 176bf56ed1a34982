"""Next-token distributions over the ids that all sides know: a tokenizer's, cut to what every head has.

Many heads have more rows than their tokenizer has ids, models of one family not equally many: what stands beyond gets
no probability, on both sides, and how much it had is measured.
"""

import torch
from torch import Tensor

from distillkit_builtin.local.model.fused_ops import fused, fused_by_width


@fused
def known_log_softmax(logits: Tensor, known: int) -> Tensor:
    """Float32 log-softmax [n, known] over the first `known` ids of `logits` [n, rows]."""
    return torch.log_softmax(logits[:, :known].float(), dim=-1)


@fused_by_width
def entropy_of(logprobs: Tensor) -> Tensor:
    """In nats [n], of log-softmax distributions `logprobs` [n, V]."""
    return -(logprobs.exp() * logprobs).sum(-1)


@torch.no_grad()
def unknown_mass(logits: Tensor, logprobs: Tensor, ids: Tensor) -> Tensor:
    """The probability [n] of the rows of `logits` [n, rows] that `logprobs` [n, known], their log-softmax, lacks.

    `ids` [n] are any that have a probability in both.
    """
    known = logprobs.shape[1]
    if known == logits.shape[1]:
        return torch.zeros_like(logprobs[:, 0])
    some = ids.clamp(max=known - 1)[:, None]
    inside = (logits.gather(1, some).float() - logprobs.gather(1, some))[:, 0]  # the known ids' log-sum-exp
    return torch.sigmoid(torch.logsumexp(logits[:, known:].float(), dim=1) - inside)
