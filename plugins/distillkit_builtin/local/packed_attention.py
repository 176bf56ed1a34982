"""Attention inside packed sequences, as transformers calls it.

On CUDA it is PyTorch's attention for sequences of varying length (`torch.nn.attention.varlen`, FlashAttention).
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit_builtin.local.causal_lm import CausalLM

ATTENTION = "distillkit_packed"
"""The name of `packed_attention` among the attention functions of transformers."""
SHORT = 512
"""Tokens of a sequence whose attention, on the CPU, is computed with all its scores at once."""


@contextmanager
def packed_attention(causal_lm: CausalLM) -> Iterator[None]:
    """A context in which the model attends inside packed sequences; recomputed activations need it too."""
    config = causal_lm.model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    cu_seq_lens_k: Tensor,
    max_length_q: int,
    keys: Tensor | None = None,
    **rest: object,
) -> tuple[Tensor, None]:
    """What transformers calls: `query` [1, heads, T, d], `key` and `value` [1, kv_heads, T, d]; [1, T, heads, d]."""
    if query.is_cuda and varlen_attention is not None:
        # Under autocast rotary embeddings leave float32; PyTorch casts for its other attention by itself.
        query, key, value = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
        ends, longest = (cu_seq_lens_q, cu_seq_lens_k), max_length_q
        return varlen_attention(query, key, value, *ends, longest, longest, scale=scaling)[None], None
    if keys is not None:
        key, value = key[:, :, keys], value[:, :, keys]
    lengths = zip(cu_seq_lens_q.diff().tolist(), cu_seq_lens_k.diff().tolist(), strict=True)
    runs = [(len(list(run)), own, attended) for (own, attended), run in groupby(lengths)]
    queries = query[0].split([count * own for count, own, _ in runs], dim=1)
    sizes = [count * attended for count, _, attended in runs]
    run_keys, run_values = (x[0].split(sizes, dim=1) for x in (key, value))
    each = [
        _attend_equal_lengths(
            q.unflatten(1, (count, own)), k.unflatten(1, (count, attended)), v.unflatten(1, (count, attended)), scaling
        )
        for (count, own, attended), q, k, v in zip(runs, queries, run_keys, run_values, strict=True)
    ]
    return torch.cat(each)[None], None


def _attend_equal_lengths(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Of n segments: `query` [heads, n, own, d], `key` and `value` [kv_heads, n, attended, d].

    Returns [n * own, heads, d]; `share` query heads read one key head. Short ones by plain products: PyTorch's
    attention on the CPU is slow backwards.
    """
    heads, _, own, _ = query.shape
    kv_heads, _, attended, _ = key.shape
    if attended > SHORT:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        mask = None
        if own < attended:
            mask = torch.ones(own, attended, dtype=torch.bool, device=query.device).tril(attended - own)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=heads != kv_heads
        )
        return mixed.transpose(1, 2).flatten(0, 1)
    rows = query.unflatten(0, (kv_heads, -1)).transpose(1, 2).flatten(2, 3)  # [kv_heads, n, share * own, d]
    scores = (rows @ key.transpose(2, 3)).unflatten(2, (-1, own)) * scale
    masked = torch.ones(own, attended, dtype=torch.bool, device=query.device).triu(1 + attended - own)
    weights = torch.softmax(scores.masked_fill(masked, -torch.inf), dim=-1).to(value.dtype)
    mixed = (weights.flatten(2, 3) @ value).unflatten(2, (-1, own))  # [kv_heads, n, share, own, d]
    result: Tensor = mixed.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1)
    return result


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)


def _causal_varlen_attention() -> Callable[..., Tensor] | None:
    """PyTorch's attention for packed sequences, if this version's can be causal and scaled."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= set(known):
        return None
    options: dict[str, Any] = {"window_size": (-1, 0)}
    if "enable_gqa" in known:  # earlier versions take fewer heads of keys without this option
        options["enable_gqa"] = True
    return cast(Callable[..., Tensor], partial(varlen_attn, **options))


varlen_attention = _causal_varlen_attention()
