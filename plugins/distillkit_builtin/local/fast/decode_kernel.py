"""Attention of one token a row over the row's own keys and values, in Triton: reads no more than each row holds.

Queries and the token's own key are normed and turned here, as `pieces.rotated` does it elsewhere, which saves kernels.
A program handles all query heads that share one key-value head, over one of `splits` parts of the row's past; the
softmax is kept up to date while reading (https://arxiv.org/abs/1805.02867). Where there are several parts, a second
kernel puts them together, as in https://pytorch.org/blog/flash-decoding/. The new token's own key and value are written
into the cache by the program whose part they fall into.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from distillkit_builtin.local.fast.backbone import Heads

BLOCK = 32
"""Positions that are read at once."""
LEAST_PART = 256
"""A past of no more positions is not split."""
LEAST_GROUP = 16
"""Rows of a matrix product on tensor cores; query heads that are missing are padding."""
PROGRAMS = 512
"""About as many as keep a large GPU busy; with fewer rows, each row's past is split."""


def attend(new: Heads, keys: Tensor, values: Tensor, positions: Tensor, scale: float) -> Tensor:
    """[n, heads * d] of `new` queries over `keys`, `values` [slots, kv_heads, length, d] up to `positions` [n].

    The n tokens' own keys and values are written at their positions.
    """
    both, value, heads = new.both, new.value, new.queries
    count, kv_heads, width = value.shape
    length, group = keys.shape[2], heads // kv_heads
    splits = max(1, min(PROGRAMS // (count * kv_heads), triton.cdiv(length, LEAST_PART)))
    out = torch.empty(count, heads, width, device=both.device, dtype=both.dtype)
    whole = splits == 1
    parts = out if whole else out.new_empty((count, heads, splits, width), dtype=torch.float32)
    marks = out.new_empty((count, heads, splits, 2), dtype=torch.float32)
    padded = triton.next_power_of_2(width)
    _attend[(count, kv_heads, splits)](
        both, value, new.query_norm, new.key_norm, new.cos, new.sin, new.eps, keys, values, positions, parts, marks,
        scale, both.stride(0), value.stride(0), length, splits, KV_HEADS=kv_heads, GROUP=group,
        GROUP_PADDED=max(LEAST_GROUP, group), WIDTH=width, WIDTH_PADDED=padded, BLOCK=BLOCK,
        EXACT=both.dtype == torch.float32, WHOLE=whole, NORMED=new.query_norm is not None, num_warps=2, num_stages=2,
    )  # fmt: skip
    if not whole:
        _join[(count, heads)](
            parts, marks, out, splits, HEADS=heads, WIDTH=width, WIDTH_PADDED=padded, num_warps=1,
            SPLITS_PADDED=triton.next_power_of_2(splits),
        )  # fmt: skip
    return out.flatten(1)


@triton.jit
def _attend(
    both, value, query_norm, key_norm, cos, sin, eps, keys, values, positions, parts, marks, scale, stride,
    value_stride, length, splits, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr, WHOLE: tl.constexpr,
    NORMED: tl.constexpr,
) -> None:  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    blocks = tl.cdiv(tl.cdiv(position + 1, BLOCK), splits)
    begin = split * blocks * BLOCK
    end = tl.minimum(begin + blocks * BLOCK, position + 1)

    members, columns = tl.arange(0, GROUP_PADDED), tl.arange(0, WIDTH_PADDED)
    inside = columns < WIDTH
    wanted = (members[:, None] < GROUP) & inside[None, :]
    turn_cos = tl.load(cos + row * WIDTH + columns, mask=inside, other=0.0)
    turn_sin = tl.load(sin + row * WIDTH + columns, mask=inside, other=0.0)
    mine = _turned(
        both + row * stride + (head * GROUP + members) * WIDTH, wanted, columns, query_norm, turn_cos, turn_sin, eps,
        WIDTH, NORMED,
    )  # fmt: skip
    own = tl.arange(0, 1)
    new_key = _turned(
        both + row * stride + (KV_HEADS * GROUP + head + own) * WIDTH, (own[:, None] == 0) & inside[None, :], columns,
        key_norm, turn_cos, turn_sin, eps, WIDTH, NORMED,
    )  # fmt: skip
    new_value = tl.load(value + row * value_stride + head * WIDTH + columns, mask=inside, other=0.0)
    cache = (row.to(tl.int64) * KV_HEADS + head) * length * WIDTH
    if (position >= begin) & (position < end):
        tl.store(keys + cache + position * WIDTH + columns[None, :], new_key, mask=inside[None, :])
        tl.store(values + cache + position * WIDTH + columns, new_value, mask=inside)

    highest = tl.full([GROUP_PADDED], -float("inf"), tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    mixed = tl.zeros([GROUP_PADDED, WIDTH_PADDED], tl.float32)
    for start in range(begin, end, BLOCK):
        past = start + tl.arange(0, BLOCK)
        there = (past[:, None] < end) & inside[None, :]
        offsets = cache + past[:, None] * WIDTH + columns[None, :]
        old = past[:, None] < position
        k = tl.load(keys + offsets, mask=there & old, other=0.0)
        v = tl.load(values + offsets, mask=there & old, other=0.0)
        k = tl.where(old, k, new_key)
        v = tl.where(old, v, new_value[None, :])
        if EXACT:
            likeness = tl.dot(mine, tl.trans(k), input_precision="ieee") * scale
        else:
            likeness = tl.dot(mine, tl.trans(k)) * scale
        likeness = tl.where(past[None, :] < end, likeness, -float("inf"))
        higher = tl.maximum(highest, tl.max(likeness, 1))
        weights = tl.exp(likeness - higher[:, None])
        shrink = tl.exp(highest - higher)
        total = total * shrink + tl.sum(weights, 1)
        if EXACT:
            mixed = mixed * shrink[:, None] + tl.dot(weights, v, input_precision="ieee")
        else:
            mixed = mixed * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
        highest = higher

    heads = KV_HEADS * GROUP
    slot = (row * heads + head * GROUP + members) * splits + split
    place = parts + slot[:, None] * WIDTH + columns[None, :]
    if WHOLE:
        tl.store(place, (mixed / total[:, None]).to(parts.dtype.element_ty), mask=wanted)
    else:
        tl.store(place, mixed, mask=wanted)
        tl.store(marks + slot * 2, highest, mask=members < GROUP)
        tl.store(marks + slot * 2 + 1, total, mask=members < GROUP)


@triton.jit
def _turned(
    heads, wanted, columns, weight, cos, sin, eps, WIDTH: tl.constexpr, NORMED: tl.constexpr
) -> tl.tensor:  # fmt: skip
    """Heads [group, width] as `pieces.rotated` has them."""
    inside = columns < WIDTH
    across = tl.where(columns < WIDTH // 2, columns + WIDTH // 2, columns - WIDTH // 2)
    places = heads[:, None]
    x = tl.load(places + columns[None, :], mask=wanted, other=0.0)
    straight = x.to(tl.float32)
    other = tl.load(places + across[None, :], mask=wanted, other=0.0).to(tl.float32)
    if NORMED:
        shrink = tl.rsqrt(tl.sum(straight * straight, 1) / WIDTH + eps)[:, None]
        straight *= shrink * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
        other *= shrink * tl.load(weight + across, mask=inside, other=0.0).to(tl.float32)[None, :]
    return (straight * cos[None, :] + other * sin[None, :]).to(x.dtype)


@triton.jit
def _join(
    parts, marks, out, splits, HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr,
    SPLITS_PADDED: tl.constexpr,
) -> None:  # fmt: skip
    place = tl.program_id(0) * HEADS + tl.program_id(1)
    split, columns = tl.arange(0, SPLITS_PADDED), tl.arange(0, WIDTH_PADDED)
    there, inside = split < splits, columns < WIDTH
    highest = tl.load(marks + (place * splits + split) * 2, mask=there, other=-float("inf"))
    total = tl.load(marks + (place * splits + split) * 2 + 1, mask=there, other=0.0)
    share = tl.exp(highest - tl.max(highest, 0))
    whole = tl.load(
        parts + (place * splits + split[:, None]) * WIDTH + columns[None, :],
        mask=there[:, None] & inside[None, :],
        other=0.0,
    )
    mixed = tl.sum(whole * share[:, None], 0) / tl.sum(total * share, 0)
    tl.store(out + place * WIDTH + columns, mixed.to(out.dtype.element_ty), mask=inside)
