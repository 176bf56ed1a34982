"""Attention inside packed sequences, as transformers calls it.

On CUDA it is PyTorch's attention for sequences of varying length (`torch.nn.attention.varlen`, FlashAttention).
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.attention_choice import attending_by
from distillkit_builtin.local.model.causal_lm import CausalLM

ATTENTION = "distillkit_packed"
"""The name of `packed_attention` among the attention functions of transformers."""
SHORT = 512
"""Tokens of a sequence whose attention, on the CPU, is computed with all its scores at once."""


WITHOUT_EFFECT = frozenset({"position_ids", "cache_position", "position_embeddings", "max_length_k", "use_cache"})
"""What attention may be given beside what it reads: rotary embeddings were applied before, and nothing is cached."""
NEUTRAL: Mapping[str, object] = {
    "dropout": 0.0, "is_causal": True, "output_attentions": False, "output_hidden_states": False,
    "output_router_logits": False, "deterministic": True,
}  # fmt: skip
"""Keywords that ask for nothing while they have this value."""


@contextmanager
def packed_attention(causal_lm: CausalLM) -> Iterator[None]:
    """A context in which the model attends inside packed sequences; recomputed activations need it too."""
    with attending_by(causal_lm.model, ATTENTION):
        yield


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What a layer asked of attention, beside its tensors."""

    window: int | None
    """Tokens that one attends to at most, itself too; None: all that stand before it."""
    scaling: float
    """Of the scores."""
    heads: int
    kv_heads: int
    key_width: int
    value_width: int


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    cu_seq_lens_k: Tensor | None = None,
    max_length_q: int = 0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    keys: Tensor | None = None,
    calls: list[AttentionCall] | None = None,
    **rest: object,
) -> tuple[Tensor, None]:
    """What transformers calls: `query` [1, heads, T, d], `key` and `value` [1, kv_heads, T, d]; [1, T, heads, d].

    `calls` gets what is asked for. Raises UnsupportedModelError for what is not computed here: nothing is dropped.
    """
    _require_understood(module, {"attention_mask": attention_mask, **rest})
    if cu_seq_lens_q is None or cu_seq_lens_k is None:
        raise UnsupportedModelError("its layers do not pass on to attention where sequences end")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if calls is not None:
        shape = (query.shape[1], key.shape[1], query.shape[3], value.shape[3])
        calls.append(AttentionCall(sliding_window, scale, *shape))
    if query.is_cuda and varlen_attention is not None:
        ends, window = (cu_seq_lens_q, cu_seq_lens_k), (-1 if sliding_window is None else sliding_window - 1, 0)
        tensors, longest = _as_flash_attention_takes_them(query, key, value), max_length_q
        mixed = varlen_attention(*tensors, *ends, longest, longest, scale=scale, window_size=window)
        return mixed[None, ..., : value.shape[-1]], None
    if keys is not None:
        key, value = key[:, :, keys], value[:, :, keys]
    return _attend_in_runs(query, key, value, (cu_seq_lens_q, cu_seq_lens_k), scale, sliding_window)[None], None


def _attend_in_runs(
    query: Tensor, key: Tensor, value: Tensor, ends: tuple[Tensor, Tensor], scale: float, window: int | None
) -> Tensor:
    """[T, heads, value's d]: segments of equal lengths that stand together are computed at once."""
    lengths = zip(*(each.diff().tolist() for each in ends), strict=True)
    runs = [(len(list(run)), own, attended) for (own, attended), run in groupby(lengths)]
    queries = query[0].split([count * own for count, own, _ in runs], dim=1)
    sizes = [count * attended for count, _, attended in runs]
    run_keys, run_values = (x[0].split(sizes, dim=1) for x in (key, value))
    each = []
    for (count, own, attended), q, k, v in zip(runs, queries, run_keys, run_values, strict=True):
        q, k, v = q.unflatten(1, (count, own)), k.unflatten(1, (count, attended)), v.unflatten(1, (count, attended))
        each.append(_attend_equal_lengths(q, k, v, scale, window))
    return torch.cat(each)


def _as_flash_attention_takes_them(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[T, heads, d] each, in one dtype and of one width, filled up with zeros, which change no score.

    Under autocast rotary embeddings leave float32; PyTorch casts for its other attention by itself.
    """
    query, key, value = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    if key.shape[-1] != value.shape[-1]:
        width = max(key.shape[-1], value.shape[-1])
        query, key, value = (functional.pad(x, [0, width - x.shape[-1]]) for x in (query, key, value))
    return query, key, value


def _require_understood(module: nn.Module, given: Mapping[str, object]) -> None:
    """Raise UnsupportedModelError if anything is asked of attention that it does not compute."""
    if getattr(module, "is_causal", True) is False or given.get("is_causal") is False:
        raise UnsupportedModelError("some of its attention is not causal")
    for name, value in given.items():
        if name not in WITHOUT_EFFECT and value is not None and not (name in NEUTRAL and value == NEUTRAL[name]):
            raise UnsupportedModelError(f"its attention is called with {name!r}, which packed sequences do not compute")


def _attend_equal_lengths(query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    """Of n segments: `query` [heads, n, own, d], `key` and `value` [kv_heads, n, attended, d].

    Returns [n * own, heads, d]; `share` query heads read one key head. Short ones by plain products: PyTorch's
    attention on the CPU is slow backwards.
    """
    heads, _, own, _ = query.shape
    kv_heads, _, attended, _ = key.shape
    mask = torch.ones(own, attended, dtype=torch.bool, device=query.device).tril(attended - own)
    if window is not None and window < attended:
        mask = mask.triu(1 + attended - own - window)
    if attended > SHORT:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        whole = own == attended and (window is None or window >= attended)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if whole else mask,
            is_causal=whole,
            scale=scale,
            enable_gqa=heads != kv_heads,
        )
        return mixed.transpose(1, 2).flatten(0, 1)
    rows = query.unflatten(0, (kv_heads, -1)).transpose(1, 2).flatten(2, 3)  # [kv_heads, n, share * own, d]
    scores = (rows @ key.transpose(2, 3)).unflatten(2, (-1, own)) * scale
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1).to(value.dtype)
    mixed = (weights.flatten(2, 3) @ value).unflatten(2, (-1, own))  # [kv_heads, n, share, own, d]
    result: Tensor = mixed.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1)
    return result


def _varlen_attention() -> Callable[..., Tensor] | None:
    """PyTorch's attention for packed sequences, if this version's can be causal, scaled, and end at a window."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= set(known):
        return None
    options: dict[str, Any] = (
        {"enable_gqa": True} if "enable_gqa" in known else {}
    )  # earlier versions need no option for fewer heads
    return cast(Callable[..., Tensor], partial(varlen_attn, **options))


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)

varlen_attention = _varlen_attention()
