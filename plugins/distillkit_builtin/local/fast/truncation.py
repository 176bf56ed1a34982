"""Top-k and top-p without sorting the vocabulary: the least logit that stays is found bit by bit.

A token stays if the more likely ones weigh less than the limit: fewer than k tokens, or a probability below p.
That weight falls as the logit rises, so the last logit that is left out is found by a search over the 32 bits of
float32, and it is exact. Tokens with equal logits are kept or cut together, whatever their order. This is the
distribution of `plain_generator.truncated_logprobs`, which asks the host how many tokens to look at, and so cannot be
part of a CUDA graph.
"""

import torch
from torch import Tensor

from distillkit.types import SamplingParams
from distillkit_builtin.local.model.fused_ops import fused_by_width

BITS = 2
"""That one pass over the vocabulary decides: its three thresholds are compared at once. 1 and 4 are slower (H100)."""
LOWEST = -(2**31)


def truncated_logits(logits: Tensor, params: SamplingParams) -> Tensor:
    """Float32 logits [n, vocabulary] at the temperature, -inf where top-k and then top-p leave a token out."""
    logits = logits.float() / params.temperature
    if params.top_k and params.top_k < logits.shape[1]:
        logits = keep_top_k(logits, _number(params.top_k, logits))
    if params.top_p < 1.0:
        logits = keep_top_p(logits, _number(params.top_p, logits))
    return logits


@fused_by_width
def keep_top_k(logits: Tensor, count: Tensor) -> Tensor:
    """`logits` [n, vocabulary] in float32, -inf but for the `count` [] largest of each row, and their equals."""
    return _keep_top(logits, torch.ones_like(logits), count.expand(len(logits)))


@fused_by_width
def keep_top_p(logits: Tensor, share: Tensor) -> Tensor:
    """`logits` [n, vocabulary] in float32, -inf but for the most likely that make up a `share` []."""
    masses = (logits - logits.amax(1, keepdim=True)).exp()
    return _keep_top(logits, masses, share * masses.sum(1))


def _keep_top(logits: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
    """Leave out of each row what has at least its limit [n] of `weights` [n, vocabulary] above itself."""
    keys = ordered_keys(logits)
    # Of float32's keys none is the lowest, so everything is above it; no limit is larger than that.
    left_out = torch.full_like(limits, LOWEST, dtype=torch.long)
    for shift in range(32 - BITS, -1, -BITS):
        reached = torch.zeros_like(left_out)
        for digit in range(1, 1 << BITS):
            threshold = (left_out + (digit << shift)).int()
            above = torch.where(keys > threshold[:, None], weights, 0.0).sum(1)
            reached = reached + (above >= limits)  # all smaller digits reach it too
        left_out = left_out + (reached << shift)
    return logits.masked_fill(keys <= left_out.int()[:, None], -torch.inf)


def ordered_keys(values: Tensor) -> Tensor:
    """Int32 keys in the order of float32 `values`: equal where they are equal, also for the two zeros."""
    bits = torch.where(values == 0, 0.0, values).view(torch.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _number(value: float, like: Tensor) -> Tensor:
    """`value` as a tensor [] on `like`'s device.

    Code is compiled again for each other Python number; the tensor is filled, which a CUDA graph can capture.
    """
    return torch.full((), value, device=like.device, dtype=torch.float32)
