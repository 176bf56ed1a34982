"""Logprobs of given tokens from hidden states, the vocabulary met in chunks of positions.

`log p(y) = z_y - logsumexp(z)` with `z` the float32 logits of one position. At most `CHUNK_TOKENS` positions have
logits at a time, so memory does not grow with the batch.

With gradient there are two ways. Where the head itself is frozen (a LoRA), a token's logprob depends on its own hidden
state alone: its slope is had at once, while the chunk's logits are there, and the backward pass only scales it. Where
the head is trained too, each chunk is recomputed in the backward pass.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 256

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, hidden] to logits [n, vocabulary]."""


def token_logprobs(head: Head, hidden: Tensor, ids: Tensor, *, frozen_head: bool = False) -> Tensor:
    """Float32 logprobs [n] of `ids` [n], given the hidden states [n, hidden] that predict them.

    With gradient where `hidden` has one; `frozen_head` promises that nothing inside the head wants one.
    """
    with_gradient = torch.is_grad_enabled() and hidden.requires_grad
    if with_gradient and frozen_head:
        result: Tensor = _FrozenHeadLogprobs.apply(hidden, ids, head)  # type: ignore[no-untyped-call]
        return result
    chunks = zip(hidden.split(CHUNK_TOKENS), ids.split(CHUNK_TOKENS), strict=True)
    if with_gradient:
        parts = [checkpoint(_chunk_logprobs, head, h, y, use_reentrant=False) for h, y in chunks]
    else:
        parts = [_chunk_logprobs(head, h, y) for h, y in chunks]
    return torch.cat(parts)


def _chunk_logprobs(head: Head, hidden: Tensor, ids: Tensor) -> Tensor:
    logits = head(hidden).float()
    return logits.gather(1, ids[:, None]).squeeze(1) - torch.logsumexp(logits, dim=1)


class _FrozenHeadLogprobs(torch.autograd.Function):
    """`token_logprobs` that takes each logprob's slope [hidden] along with its value."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, ids: Tensor, head: Head) -> Tensor:  # noqa: ANN401 - torch's context
        values, slopes = [], []
        for h, y in zip(hidden.split(CHUNK_TOKENS), ids.split(CHUNK_TOKENS), strict=True):
            with torch.enable_grad():
                leaf = h.detach().requires_grad_()
                value = _chunk_logprobs(head, leaf, y)
                slopes.append(torch.autograd.grad(value.sum(), leaf)[0])
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's context
        (slopes,) = ctx.saved_tensors
        return gradient[:, None].to(slopes.dtype) * slopes, None, None
