"""Packed attention by one big mask, which a test changes, and what stands in the place of any attention for a test."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.packing.packed_attention import AttentionCall
from helpers.model_families import random_causal_lm

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])

Allowed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of what may be read [T, T], where segments begin [n], and where they end [n]: what is read instead."""


def explicit(change: Allowed, *, window: int = 0) -> Callable[..., tuple[Tensor, None]]:
    """Packed attention by one big mask, changed; each layer's window is longer by `window` tokens."""

    def attend(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, *, scaling: float,
        cu_seq_lens_q: Tensor, cu_seq_lens_k: Tensor, keys: Tensor | None = None, sliding_window: int | None = None,
        calls: list[AttentionCall] | None = None, **rest: object,
    ) -> tuple[Tensor, None]:  # fmt: skip
        if calls is not None:
            shape = (query.shape[1], key.shape[1], query.shape[3], value.shape[3])
            calls.append(AttentionCall(sliding_window, scaling, *shape))
        length = query.shape[2]
        order = torch.arange(length) if keys is None else keys
        allowed = torch.zeros(length, length, dtype=torch.bool)
        ends, key_ends = cu_seq_lens_q.tolist(), cu_seq_lens_k.tolist()
        for start, end, first, last in zip(ends, ends[1:], key_ends, key_ends[1:], strict=False):
            for token in range(start, end):
                read = order[first : last - (end - 1 - token)]
                allowed[token, read if sliding_window is None else read[-(sliding_window + window) :]] = True
        allowed = change(allowed, cu_seq_lens_q[:-1].long(), cu_seq_lens_q[1:].long())
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = (query @ key.transpose(2, 3)).float() * scaling
        weights = torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1).to(value.dtype)
        return (weights @ value).transpose(1, 2), None

    return attend


def right(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    return allowed


def leaks(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The last token of one sequence reads the last token of the one before; all else is right."""
    allowed[ends[-1] - 1, starts[-1] - 1] = True
    return allowed


def leaks_ahead(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    allowed[ends[0] - 1, ends[0]] = True
    return allowed


def forgets(allowed: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """The last token of each sequence of several does not read the first one that it should."""
    for end in ends:
        read = allowed[end - 1].nonzero().flatten()
        if len(read) > 1:
            allowed[end - 1, read[0]] = False
    return allowed


def llama(dtype: torch.dtype, **over: Any) -> CausalLM:
    causal_lm = random_causal_lm("llama", **over)
    causal_lm.model.to(dtype)
    causal_lm.dtype = dtype
    return causal_lm


@contextmanager
def attention_in_the_place_of(name: str) -> Iterator[Callable[[Any], None]]:
    """Gives what puts another attention in the place of the one of that name, until the block ends.

    By registering it: an item that is set in the mapping would stand before all that are registered later.
    """
    before = ALL_ATTENTION_FUNCTIONS[name]
    try:
        yield lambda attend: ALL_ATTENTION_FUNCTIONS.register(name, attend)
    finally:
        ALL_ATTENTION_FUNCTIONS.register(name, before)
