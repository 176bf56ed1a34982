"""Logprobs of given tokens from hidden states, computed in chunks of positions.

`log p(y) = z_y - logsumexp(z)` with `z` the float32 logits of one position. At most a chunk of positions has
logits at a time, so memory does not grow with the batch.

Where the head itself is frozen (a LoRA), a token's logprob depends on its own hidden state alone: its gradient by that
state is computed at once, while the chunk's logits exist, and the backward pass only scales it. A head that is trained
has a gradient that is a sum over tokens, so training computes its loss with it (`training/head_gradients.py`); here the
logits of such a head are kept for the backward pass.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from distillkit_builtin.local.model.fused_ops import logprobs_of

CHUNK_TOKENS, ON_CUDA = 128, 1024
"""Positions of a chunk: enough to keep the device busy. On CUDA a product of the head with as many does 500 operations
a byte for a model 1,024 wide and 800 for one of 4,096, where an H100 needs 295."""

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, hidden] to logits [n, vocabulary]."""


def token_logprobs(head: Head, hidden: Tensor, ids: Tensor, *, frozen_head: bool = False) -> Tensor:
    """Float32 logprobs [n] of `ids` [n], given the hidden states [n, hidden] that predict them.

    With gradient where `hidden` has one; `frozen_head` promises that no parameter of the head needs one.
    """
    if frozen_head and torch.is_grad_enabled() and hidden.requires_grad:
        result: Tensor = _FrozenHeadLogprobs.apply(hidden, ids, head)  # type: ignore[no-untyped-call]
        return result
    return torch.cat([_chunk_logprobs(head, h, y) for h, y in _chunks(hidden, ids)])


def _chunks(hidden: Tensor, ids: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = ON_CUDA if hidden.is_cuda else CHUNK_TOKENS
    return zip(hidden.split(size), ids.split(size), strict=True)


def _chunk_logprobs(head: Head, hidden: Tensor, ids: Tensor) -> Tensor:
    return logprobs_of(head(hidden), ids)


class _FrozenHeadLogprobs(torch.autograd.Function):
    """`token_logprobs` that keeps each logprob's gradient by its hidden state [hidden] along with its value."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, ids: Tensor, head: Head) -> Tensor:  # noqa: ANN401 - torch's context
        values, gradients = [], []
        for h, y in _chunks(hidden, ids):
            with torch.enable_grad():
                leaf = h.detach().requires_grad_()
                value = _chunk_logprobs(head, leaf, y)
                gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
            values.append(value.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's context
        (by_hidden,) = ctx.saved_tensors
        return gradient[:, None].to(by_hidden.dtype) * by_hidden, None, None
