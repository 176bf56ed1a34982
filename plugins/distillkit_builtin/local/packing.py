"""Sequences end to end in one row: nothing is padded, and layers that are compiled meet inputs of one form alone.

Attention stays inside each sequence. On CUDA that is PyTorch's attention for sequences of varying length
(`torch.nn.attention.varlen`, FlashAttention); elsewhere one call a sequence.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._dynamo import mark_dynamic
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from distillkit_builtin.local.device import autocast
from distillkit_builtin.local.fast.trunk import Unknown, require_known
from distillkit_builtin.local.logprobs import token_logprobs
from distillkit_builtin.local.network import Network, PromptAndResponse

ATTENTION = "distillkit_packed"
"""Its name among the attention functions of transformers."""
ROUND = 128
"""On CUDA a row is filled up to a multiple of this many tokens, which matrix products like."""
LEAST_LONGEST = 2048
"""Attention on CUDA is told that sequences may be this long: for shorter ones it has next to nothing more to do."""
SHORT = 512
"""Tokens of a sequence whose attention, on the CPU, is computed with all its scores at once."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far packed and padded hidden states may be apart, as a share of their norm."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences of tokens in one row [1, T]."""

    ids: Tensor
    positions: Tensor
    """[1, T]: of each token in its own sequence."""
    ends: Tensor
    """[n + 1] int32: where each of the n sequences begins, and where the last one ends."""
    longest: int
    """No sequence has more tokens. A power of two, and not small: layers are compiled again for each value."""
    predicting: Tensor
    """[R] places of the tokens that predict a response's token, the responses end to end."""

    @classmethod
    def of(cls, items: Sequence[PromptAndResponse], device: torch.device) -> "Packed":
        """Prompts with their responses, in order; on CUDA with a sequence of zeros behind them that fills the row."""
        lengths = [len(item) for item in items]
        filled = -sum(lengths) % ROUND if device.type == "cuda" else 0
        if filled:
            lengths.append(filled)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = [array for item in items for array in (item.prompt_ids, item.response_ids)]
        ids = np.concatenate([*rows, np.zeros(filled, dtype=np.int64)]).astype(np.int64)
        positions = np.concatenate([np.arange(length) for length in lengths])
        predicting = np.concatenate(
            [
                start + np.arange(len(item.prompt_ids) - 1, len(item) - 1)
                for start, item in zip(starts, items, strict=False)
            ]
        )
        return cls(
            torch.from_numpy(ids)[None].to(device),
            torch.from_numpy(positions)[None].to(device),
            torch.from_numpy(starts.astype(np.int32)).to(device),
            max(LEAST_LONGEST, 1 << (max(lengths) - 1).bit_length()),
            torch.from_numpy(predicting).to(device),
        )


def packed_logprobs(network: Network, items: Sequence[PromptAndResponse]) -> Tensor:
    """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...]; with gradient if enabled."""
    packed = Packed.of(items, network.device.device)
    hidden = packed_hidden_states(network, packed)[packed.predicting]
    scored = packed.ids[0, packed.predicting + 1]
    return token_logprobs(network.head, hidden, scored, frozen_head=network.head_is_frozen)


def packed_hidden_states(network: Network, packed: Packed) -> Tensor:
    """The last hidden states [T, hidden]."""
    embedded = network.model.get_input_embeddings()(packed.ids)
    if torch.is_grad_enabled() and not embedded.requires_grad:
        embedded.requires_grad_()  # else a LoRA's first layer would be compiled on its own: its input alone has none
    vary_in_tokens(embedded, packed.positions)
    mark_dynamic(packed.ends, 0)
    with packed_attention(network):
        out = network.trunk(
            inputs_embeds=embedded,
            position_ids=packed.positions,
            use_cache=False,
            cu_seq_lens_q=packed.ends,
            max_length_q=packed.longest,
        )
    hidden: Tensor = out.last_hidden_state
    return hidden[0]


def require_packable(network: Network) -> None:
    """Raise Unknown, saying why, unless packed sequences give what they give one by one on this device."""
    config = network.model.config.get_text_config()
    require_known(config)
    if getattr(config, "attention_dropout", 0.0):
        raise Unknown("its attention has dropout")
    if network.dtype not in ROUNDING:
        raise Unknown(f"packing was never tried in {network.dtype}")
    kind = network.device.device.type
    if kind not in ("cuda", "cpu"):
        raise Unknown(f"packing was never tried on {kind}")
    if kind == "cuda" and _attend_on_cuda is None:
        raise Unknown(f"PyTorch {torch.__version__} has no attention for packed sequences of this kind")
    if kind == "cuda" and network.dtype == torch.float32:
        raise Unknown("FlashAttention does not compute in float32")
    try:
        with autocast(network.device.device, network.dtype):
            apart = _apart(network)
    except (RuntimeError, ValueError) as error:  # what PyTorch raises of shapes and devices that a kernel does not know
        raise Unknown(
            f"packed sequences cannot be computed here: {str(error).strip().partition(chr(10))[0]}"
        ) from error
    if not apart <= ROUNDING[network.dtype]:
        raise Unknown(f"its packed hidden states are {apart:.2g} of their norm away from the padded ones")


def balanced(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Places of `lengths` in `parts` groups of about the same sum, each in order; of few lengths some groups are empty.

    The longest goes first, each to the group that is lightest so far (Graham's rule: at most 4/3 of the best,
    https://doi.org/10.1137/0117039).
    """
    groups: list[list[int]] = [[] for _ in range(parts)]
    sums = [0] * parts
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        lightest = min(range(parts), key=sums.__getitem__)
        groups[lightest].append(place)
        sums[lightest] += lengths[place]
    return [sorted(group) for group in groups]


def packed_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Places of `lengths` in few groups of about the same sum, at most `max_tokens` each (or one item)."""
    alone = [[i] for i, length in enumerate(lengths) if length > max_tokens]
    rest = [i for i, length in enumerate(lengths) if length <= max_tokens]
    sizes = [lengths[i] for i in rest]
    parts = -(-sum(sizes) // max_tokens)
    while True:
        groups = [[rest[i] for i in group] for group in balanced(sizes, parts) if group]
        if all(sum(lengths[i] for i in group) <= max_tokens for group in groups):
            return sorted(alone + groups)
        parts += 1


def vary_in_tokens(*tensors: Tensor) -> None:
    """Tell torch.compile that the second dimension varies, so that it compiles once for all row lengths.

    With `dynamic=True` it would take every other dimension for a variable too: four times as long for a LoRA.
    """
    for tensor in tensors:
        mark_dynamic(tensor, 1)


@contextmanager
def packed_attention(network: Network) -> Iterator[None]:
    """The network attends inside packed sequences; activation checkpointing needs that in the backward pass too."""
    config = network.model.config.get_text_config()
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
    max_length_q: int,
    **rest: object,
) -> tuple[Tensor, None]:
    """What transformers calls: `query` [1, heads, T, d], `key` and `value` [1, kv_heads, T, d]; [1, T, heads, d]."""
    if query.is_cuda and _attend_on_cuda is not None:
        # Under autocast rotary embeddings leave float32; PyTorch casts for its other attention by itself.
        query, key, value = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
        ends, longest = cu_seq_lens_q, max_length_q
        return _attend_on_cuda(query, key, value, ends, ends, longest, longest, scale=scaling)[None], None
    runs = [(len(list(run)), length) for length, run in groupby(cu_seq_lens_q.diff().tolist())]
    sizes = [count * length for count, length in runs]
    parts = zip(runs, *(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True)
    each = [
        _attend_alike(q.unflatten(1, run), k.unflatten(1, run), v.unflatten(1, run), scaling) for run, q, k, v in parts
    ]
    return torch.cat(each)[None], None


def _attend_alike(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Of sequences of one length: `query` [heads, n, length, d], `key` and `value` [kv_heads, n, length, d].

    Returns [n * length, heads, d]; `share` query heads read one key head. Short sequences by plain products: PyTorch's
    attention on the CPU is slow backwards.
    """
    heads, _, length, _ = query.shape
    kv_heads = len(key)
    if length > SHORT:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=heads != kv_heads
        )
        return mixed.transpose(1, 2).flatten(0, 1)
    rows = query.unflatten(0, (kv_heads, -1)).transpose(1, 2).flatten(2, 3)  # [kv_heads, n, share * length, d]
    scores = (rows @ key.transpose(2, 3)).unflatten(2, (-1, length)) * scale
    hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1).to(value.dtype)
    mixed = (weights.flatten(2, 3) @ value).unflatten(2, (-1, length))  # [kv_heads, n, share, length, d]
    back: Tensor = mixed.permute(1, 3, 0, 2, 4).flatten(2, 3).flatten(0, 1)
    return back


ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attend)


def _causal_varlen() -> Callable[..., Tensor] | None:
    """PyTorch's attention for packed sequences, if this version's can be causal and scaled."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    if not {"scale", "window_size"} <= set(known):
        return None
    options: dict[str, Any] = {"window_size": (-1, 0)}
    if "enable_gqa" in known:  # earlier versions take fewer heads of keys without being told
        options["enable_gqa"] = True
    return cast(Callable[..., Tensor], partial(varlen_attn, **options))


_attend_on_cuda = _causal_varlen()


@torch.no_grad()
def _apart(network: Network) -> float:
    """The distance between packed and single hidden states of two sequences, as a share of their norm."""
    count = len(network.model.get_input_embeddings().get_parameter("weight"))
    ids = np.random.default_rng(0).integers(0, count, 20)
    items = [PromptAndResponse(ids[:8], ids[8:9]), PromptAndResponse(ids[9:18], ids[18:])]
    packed = packed_hidden_states(network, Packed.of(items, network.device.device))[: len(ids)].float()
    alone = [
        network.hidden_states(torch.from_numpy(part)[None].to(network.device.device))[0] for part in (ids[:9], ids[9:])
    ]
    plain = torch.cat(alone).float()
    return float((packed - plain).norm() / plain.norm())
