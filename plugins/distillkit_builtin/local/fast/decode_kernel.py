"""Attention of one token a row over the row's own keys and values, in Triton: reads no more than each row holds.

Queries and the token's own key are normed and rotated here, as `fused_ops.normed_and_rotated` does it elsewhere, which
saves kernels.
A program handles all query heads that share one key-value head, over one of `splits` parts of what the row attends to,
which is its past, or as much of that as a window holds; the softmax is computed online
(https://arxiv.org/abs/1805.02867). Where there are several parts, a second kernel puts them together, as in
https://pytorch.org/blog/flash-decoding/. The new token's own key and value are written into the cache by the program
whose part they fall into.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from distillkit_builtin.local.fast.backbone import AttentionInputs

BLOCK = 32
"""Positions that are read at once."""
MIN_PART = 256
"""A past of no more positions is not split."""
MIN_GROUP = 16
"""Rows of a matrix product on tensor cores; query heads that are missing are padding."""
LOG2_E = 1.4426950408889634
"""Powers of two are what a GPU computes; scores are multiplied by this."""
PROGRAMS = 512
"""About as many as keep a large GPU busy; with fewer rows, each row's past is split."""


def fused_decode_attention(new: AttentionInputs, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """The mixed values [n, heads * d] of `new` queries.

    They attend over `keys` and `values` [slots, kv_heads, length, d] up to `positions` [n], as far back as the window
    reaches.

    The n tokens' own keys and values are written at their positions.
    """
    both, value, heads = new.query_key, new.value, new.query_heads
    count, kv_heads, width = value.shape
    length, group = keys.shape[2], heads // kv_heads
    window = length if new.window is None else min(length, new.window)
    splits = max(1, min(PROGRAMS // (count * kv_heads), triton.cdiv(window, MIN_PART)))
    out = torch.empty(count, heads, width, device=both.device, dtype=both.dtype)
    whole = splits == 1
    parts = out if whole else out.new_empty((count, heads, splits, width), dtype=torch.float32)
    stats = out.new_empty((count, heads, splits, 2), dtype=torch.float32)
    padded = max(16, triton.next_power_of_2(width))  # no smaller products are known to a GPU
    _attend[(count, kv_heads, splits)](
        both, value, new.query_norm, new.key_norm, new.cos, new.sin, new.eps, keys, values, positions, parts, stats,
        new.scale * LOG2_E, both.stride(0), value.stride(0), length, window, splits, KV_HEADS=kv_heads, GROUP=group,
        GROUP_PADDED=max(MIN_GROUP, group), WIDTH=width, WIDTH_PADDED=padded, BLOCK=BLOCK,
        PRECISION="ieee" if both.dtype == torch.float32 else "tf32", WHOLE=whole, NORMED=new.query_norm is not None,
        ABOUT_ONE=new.about_one,
        num_warps=2 if padded <= 128 else 4, num_stages=_stages(padded, keys.element_size()),
    )  # fmt: skip
    if not whole:
        _combine[(count, heads)](
            parts, stats, out, splits, HEADS=heads, WIDTH=width, WIDTH_PADDED=padded, num_warps=1,
            SPLITS_PADDED=triton.next_power_of_2(splits),
        )  # fmt: skip
    return out.flatten(1)


def _stages(padded: int, number_bytes: int) -> int:
    """How many blocks are on their way at once: three, where they take no more than half of a small GPU's memory."""
    return 3 if 2 * BLOCK * padded * number_bytes <= 16 * 2**10 else 2


@triton.jit
def _attend(
    both, value, query_norm, key_norm, cos, sin, eps, keys, values, positions, parts, stats, scale, stride,
    value_stride, length, window, splits, KV_HEADS: tl.constexpr, GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr,
    WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr,
    NORMED: tl.constexpr, ABOUT_ONE: tl.constexpr,
) -> None:  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    position = tl.load(positions + row).to(tl.int32)
    first = tl.maximum(position + 1 - window, 0)
    blocks = tl.cdiv(tl.cdiv(position + 1 - first, BLOCK), splits)
    begin = first + split * blocks * BLOCK
    end = tl.minimum(begin + blocks * BLOCK, position + 1)

    members, columns = tl.arange(0, GROUP_PADDED), tl.arange(0, WIDTH_PADDED)
    inside = columns < WIDTH
    mask = (members[:, None] < GROUP) & inside[None, :]
    rotary_cos = tl.load(cos + row * WIDTH + columns, mask=inside, other=0.0)
    rotary_sin = tl.load(sin + row * WIDTH + columns, mask=inside, other=0.0)
    mine = _rotated(
        both + row * stride + (head * GROUP + members) * WIDTH, mask, columns, query_norm, rotary_cos, rotary_sin, eps,
        WIDTH, NORMED, ABOUT_ONE,
    )  # fmt: skip
    own = tl.arange(0, 1)
    new_key = _rotated(
        both + row * stride + (KV_HEADS * GROUP + head + own) * WIDTH, (own[:, None] == 0) & inside[None, :], columns,
        key_norm, rotary_cos, rotary_sin, eps, WIDTH, NORMED, ABOUT_ONE,
    )  # fmt: skip
    new_value = tl.load(value + row * value_stride + head * WIDTH + columns, mask=inside, other=0.0)
    cache = (row.to(tl.int64) * KV_HEADS + head) * length * WIDTH
    if (position >= begin) & (position < end):
        tl.store(keys + cache + position * WIDTH + columns[None, :], new_key, mask=inside[None, :])
        tl.store(values + cache + position * WIDTH + columns, new_value, mask=inside)

    # The new token is what the softmax begins with, in the program that holds it: what is read is then only the past,
    # which goes to the products as it comes.
    holds = (position >= begin) & (position < end)
    own_score = tl.sum(mine.to(tl.float32) * new_key.to(tl.float32), 1) * scale
    highest = tl.where(holds, own_score, -float("inf"))
    total = tl.where(holds, tl.full([GROUP_PADDED], 1.0, tl.float32), 0.0)
    mixed = tl.where(holds, tl.zeros([GROUP_PADDED, WIDTH_PADDED], tl.float32) + new_value[None, :].to(tl.float32), 0.0)
    past = tl.maximum(tl.minimum(end, position), begin)
    whole_blocks = begin + (past - begin) // BLOCK * BLOCK
    inner = tl.arange(0, BLOCK)
    offsets = cache + (begin + inner[:, None]) * WIDTH + columns[None, :]
    for _ in range(begin, whole_blocks, BLOCK):
        if WIDTH == WIDTH_PADDED:
            k, v = tl.load(keys + offsets), tl.load(values + offsets)
        else:
            k = tl.load(keys + offsets, mask=inside[None, :], other=0.0)
            v = tl.load(values + offsets, mask=inside[None, :], other=0.0)
        highest, total, mixed = _read(mine, k, v, inner < BLOCK, highest, total, mixed, scale, PRECISION)
        offsets += BLOCK * WIDTH
    if whole_blocks < past:
        present = whole_blocks + inner < past
        loaded = present[:, None] & inside[None, :]
        k = tl.load(keys + offsets, mask=loaded, other=0.0)
        v = tl.load(values + offsets, mask=loaded, other=0.0)
        highest, total, mixed = _read(mine, k, v, present, highest, total, mixed, scale, PRECISION)

    heads = KV_HEADS * GROUP
    slot = (row * heads + head * GROUP + members) * splits + split
    target = parts + slot[:, None] * WIDTH + columns[None, :]
    if WHOLE:
        tl.store(target, (mixed / total[:, None]).to(parts.dtype.element_ty), mask=mask)
    else:
        tl.store(target, mixed, mask=mask)
        tl.store(stats + slot * 2, highest, mask=members < GROUP)
        tl.store(stats + slot * 2 + 1, total, mask=members < GROUP)


@triton.jit
def _read(mine, k, v, present, highest, total, mixed, scale, PRECISION: tl.constexpr) -> tuple[tl.tensor, ...]:
    """The online softmax, a block of keys and values [block, width] further; scores are in powers of two."""
    scores = tl.dot(mine, tl.trans(k), input_precision=PRECISION) * scale
    scores = tl.where(present[None, :], scores, -float("inf"))
    higher = tl.maximum(highest, tl.max(scores, 1))
    weights = tl.exp2(scores - higher[:, None])
    shrink = tl.exp2(highest - higher)
    mixed = mixed * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision=PRECISION)
    return higher, total * shrink + tl.sum(weights, 1), mixed


@triton.jit
def _rotated(
    heads, mask, columns, weight, cos, sin, eps, WIDTH: tl.constexpr, NORMED: tl.constexpr, ABOUT_ONE: tl.constexpr
) -> tl.tensor:  # fmt: skip
    """Heads [group, width], normed and rotated."""
    inside = columns < WIDTH
    across = tl.where(columns < WIDTH // 2, columns + WIDTH // 2, columns - WIDTH // 2)
    rows = heads[:, None]
    x = tl.load(rows + columns[None, :], mask=mask, other=0.0)
    straight = x.to(tl.float32)
    other = tl.load(rows + across[None, :], mask=mask, other=0.0).to(tl.float32)
    if NORMED:
        shrink = tl.rsqrt(tl.sum(straight * straight, 1) / WIDTH + eps)[:, None]
        own = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
        opposite = tl.load(weight + across, mask=inside, other=0.0).to(tl.float32)
        if ABOUT_ONE:
            own += 1.0
            opposite += 1.0
        straight *= shrink * own[None, :]
        other *= shrink * opposite[None, :]
    return (straight * cos[None, :] + other * sin[None, :]).to(x.dtype)


@triton.jit
def _combine(
    parts, stats, out, splits, HEADS: tl.constexpr, WIDTH: tl.constexpr, WIDTH_PADDED: tl.constexpr,
    SPLITS_PADDED: tl.constexpr,
) -> None:  # fmt: skip
    index = tl.program_id(0) * HEADS + tl.program_id(1)
    split, columns = tl.arange(0, SPLITS_PADDED), tl.arange(0, WIDTH_PADDED)
    present, inside = split < splits, columns < WIDTH
    highest = tl.load(stats + (index * splits + split) * 2, mask=present, other=-float("inf"))
    total = tl.load(stats + (index * splits + split) * 2 + 1, mask=present, other=0.0)
    share = tl.exp2(highest - tl.max(highest, 0))
    whole = tl.load(
        parts + (index * splits + split[:, None]) * WIDTH + columns[None, :],
        mask=present[:, None] & inside[None, :],
        other=0.0,
    )
    mixed = tl.sum(whole * share[:, None], 0) / tl.sum(total * share, 0)
    tl.store(out + index * WIDTH + columns, mixed.to(out.dtype.element_ty), mask=inside)
