"""Logprobs of given tokens from hidden states, the vocabulary met in chunks of positions.

`log p(y) = z_y - logsumexp(z)` with `z` the float32 logits of one position. At most `CHUNK_TOKENS` positions have
logits at a time; in training each chunk is recomputed in the backward pass, so memory does not grow with the batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_TOKENS = 256

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, hidden] to logits [n, vocabulary]."""


def token_logprobs(head: Head, hidden: Tensor, ids: Tensor) -> Tensor:
    """Float32 logprobs [n] of `ids` [n], given the hidden states [n, hidden] that predict them.

    With gradient where `hidden` has one.
    """
    chunks = zip(hidden.split(CHUNK_TOKENS), ids.split(CHUNK_TOKENS), strict=True)
    if torch.is_grad_enabled() and hidden.requires_grad:
        parts = [checkpoint(_chunk_logprobs, head, h, y, use_reentrant=False) for h, y in chunks]
    else:
        parts = [_chunk_logprobs(head, h, y) for h, y in chunks]
    return torch.cat(parts)


def _chunk_logprobs(head: Head, hidden: Tensor, ids: Tensor) -> Tensor:
    logits = head(hidden).float()
    return logits.gather(1, ids[:, None]).squeeze(1) - torch.logsumexp(logits, dim=1)
