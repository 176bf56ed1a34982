"""Attention of one token a row over the row's own keys and values, in Triton: reads no more than each row holds.

A program handles all query heads that share one key-value head, over one of `SPLITS` parts of the row's past; the
softmax is kept up to date while reading (https://arxiv.org/abs/1805.02867), and the parts are put together by a
second kernel, as in https://pytorch.org/blog/flash-decoding/. The new token's own key and value are written into the
cache by the program whose part they fall into.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64
"""Positions that are read at once."""
LEAST_GROUP = 16
"""Rows of a matrix product on tensor cores; query heads that are missing are padding."""
PROGRAMS = 1024
"""About as many as keep a large GPU busy; with fewer rows, each row's past is split."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, positions: Tensor, scale: float
) -> Tensor:
    """[n, heads * d] of `query` [n, heads, d] over `keys`, `values` [slots, kv_heads, length, d] up to `positions` [n].

    `key` and `value` [n, kv_heads, d] are the token's own, and are written at its position.
    """
    count, heads, width = query.shape
    kv_heads, length = keys.shape[1], keys.shape[2]
    group = heads // kv_heads
    splits = max(1, min(PROGRAMS // (count * kv_heads), triton.cdiv(length, 4 * BLOCK)))
    parts = torch.empty(count, heads, splits, width, device=query.device, dtype=torch.float32)
    marks = torch.empty(count, heads, splits, 2, device=query.device, dtype=torch.float32)
    padded = triton.next_power_of_2(width)
    _attend[(count, kv_heads, splits)](
        query, key, value, keys, values, positions, parts, marks, scale, query.stride(0), key.stride(0),
        value.stride(0), length, splits, KV_HEADS=kv_heads, GROUP=group, GROUP_PADDED=max(LEAST_GROUP, group),
        WIDTH=width, WIDTH_PADDED=padded, BLOCK=BLOCK, EXACT=query.dtype == torch.float32, num_warps=4, num_stages=2,
    )  # fmt: skip
    out = torch.empty(count, heads, width, device=query.device, dtype=query.dtype)
    _join[(count, heads)](
        parts, marks, out, splits, HEADS=heads, WIDTH=width, WIDTH_PADDED=padded, num_warps=1,
        SPLITS_PADDED=triton.next_power_of_2(splits),
    )  # fmt: skip
    return out.flatten(1)


@triton.jit
def _attend(
    query, key, value, keys, values, positions, parts, marks, scale, query_stride, key_stride, value_stride, length,
    splits, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, WIDTH: tl.constexpr,
    WIDTH_PADDED: tl.constexpr, BLOCK: tl.constexpr, EXACT: tl.constexpr,
) -> None:  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    blocks = tl.cdiv(tl.cdiv(position + 1, BLOCK), splits)
    begin = split * blocks * BLOCK
    end = tl.minimum(begin + blocks * BLOCK, position + 1)

    members, columns = tl.arange(0, GROUP_PADDED), tl.arange(0, WIDTH_PADDED)
    inside = columns < WIDTH
    wanted = (members[:, None] < GROUP) & inside[None, :]
    places = query + row * query_stride + (head * GROUP + members[:, None]) * WIDTH + columns[None, :]
    mine = tl.load(places, mask=wanted, other=0.0)
    new_key = tl.load(key + row * key_stride + head * WIDTH + columns, mask=inside, other=0.0)
    new_value = tl.load(value + row * value_stride + head * WIDTH + columns, mask=inside, other=0.0)
    cache = (row.to(tl.int64) * KV_HEADS + head) * length * WIDTH
    if (position >= begin) & (position < end):
        tl.store(keys + cache + position * WIDTH + columns, new_key, mask=inside)
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
        k = tl.where(old, k, new_key[None, :])
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
    tl.store(parts + slot[:, None] * WIDTH + columns[None, :], mixed, mask=wanted)
    tl.store(marks + slot * 2, highest, mask=members < GROUP)
    tl.store(marks + slot * 2 + 1, total, mask=members < GROUP)


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
