"""Sampling a token by inverse transform, without a running sum over the whole vocabulary."""

import torch
from torch import Tensor
from torch.nn import functional

from distillkit_builtin.local.model.fused_ops import fused_by_width

CHUNK = 128
"""Tokens whose probabilities are summed first; the running sum goes over the chunks, and then inside one."""


@fused_by_width
def sample_token(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [n] sampled by `logits` [n, vocabulary] and `uniforms` [n] in [0, 1), and their float32 logprobs [n].

    The first token whose cumulative probability exceeds the uniform. One that has no probability is never sampled.
    """
    size = logits.shape[1]
    padded = logits.float()
    if size % CHUNK:
        padded = functional.pad(padded, (0, -size % CHUNK), value=-torch.inf)
    highest = padded.amax(1, keepdim=True)
    sums = (padded - highest).exp_().unflatten(1, (-1, CHUNK)).sum(2)
    cumulative = sums.cumsum(1)
    target = uniforms[:, None] * cumulative[:, -1:]
    chunk = _first(cumulative > target, sums)
    before = (cumulative - sums).gather(1, chunk)
    offsets = chunk * CHUNK + torch.arange(CHUNK, device=logits.device)
    inside = (padded.gather(1, offsets) - highest).exp()
    offset = _first((before + inside.cumsum(1) > target) & (inside > 0), inside)
    index = chunk * CHUNK + offset
    logprob = padded.gather(1, index) - highest - cumulative[:, -1:].log()
    return index.squeeze(1), logprob.squeeze(1)


def _first(exceeds: Tensor, mass: Tensor) -> Tensor:
    """Per row the first index [n, 1] that exceeds; where rounding leaves none, that of the largest mass."""
    return torch.where(exceeds.any(1), exceeds.int().argmax(1), mass.argmax(1))[:, None]
