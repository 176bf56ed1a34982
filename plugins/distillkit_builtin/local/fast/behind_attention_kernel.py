"""All of a decoder layer behind its attention, up to the next layer's queries, keys and values, in one Triton kernel.

Alone, each of its six parts (`PHASES`) is over before the memory is busy, and its successor starts behind it. Here all
programs do one part after the other and wait for each other in between; while they wait, the next part's weights are on
their way into the cache. `behind_attention.py` says for which layers.

That all programs run at once, so that none waits for one that cannot begin, is what a cooperative launch is for
(https://docs.nvidia.com/cuda/cuda-c-programming-guide/#grid-synchronization).

Nothing is added up by atomic operations: the same inputs give the same numbers each time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from distillkit_builtin.local.fast.behind_attention import PROGRAMS, BehindAttention, LayerTiles
from distillkit_builtin.local.fast.few_rows import MAX_ROWS
from distillkit_builtin.local.fast.few_rows_kernel import MIN_ROWS, part_of_product, tile_of_gates

PHASES = 6
"""Of the output projection, and its norm; gates; of the way down, and its norm; queries, keys and values."""
LINE_BYTES = 128
"""That a GPU's cache fetches at once."""


def behind_attention(
    layer: BehindAttention, tiles: LayerTiles, residual: Tensor, mixed: Tensor, *, at_once: bool = True
) -> tuple[Tensor, Tensor]:
    """Hidden states [n, hidden] behind the layer, and `qkv` [n, outputs] of them, or what the head reads.

    Of `residual` [n, hidden], which the layer read, and `mixed` [n, heads * d], what its attention gave; its products
    are made of whole tiles. `at_once=False`: each phase is a launch of its own, in which no program waits for another.
    """
    (count, hidden), inputs, width = residual.shape, mixed.shape[1], layer.down.shape[1]
    outputs = 0 if layer.qkv is None else len(layer.qkv)
    parts = residual.new_empty(tiles.out.splits, count, hidden, dtype=torch.float32)
    total, read = torch.empty_like(residual), torch.empty_like(residual)
    between, wide = torch.empty_like(residual), residual.new_empty(count, width)
    result = residual.new_empty(count, outputs) if outputs else read
    last = PHASES if outputs else PHASES - 1
    for first, end in [(0, last)] if at_once else [(i, i + 1) for i in range(last)]:
        _behind_attention[(PROGRAMS,)](
            mixed, residual, layer.out, layer.norm_between, layer.gate_up, layer.down, layer.norm_after,
            layer.out if layer.qkv is None else layer.qkv, parts, between, read, wide, total, result, layer.counter,
            count, layer.eps, INPUTS=inputs, HIDDEN=hidden, WIDTH=width, OUTPUTS=outputs, FIRST=first, END=end,
            ROWS=MIN_ROWS if count <= MIN_ROWS else MAX_ROWS, OUT=tuple(tiles.out), GATES=tuple(tiles.gates),
            DOWN=tuple(tiles.down), QKV=tuple(tiles.qkv), SILU=layer.activation == "silu", ABOUT_ONE=layer.about_one,
            LINE=LINE_BYTES // residual.element_size(), COUNT=PROGRAMS, num_warps=tiles.out.warps,
            launch_cooperative_grid=at_once,
        )  # fmt: skip
    return total, result


@triton.jit(do_not_specialize=["count"])
def _behind_attention(
    mixed, residual, out, norm_between, gate_up, down, norm_after, qkv, parts, between, read, wide, total, result,
    counter, count, eps, INPUTS: tl.constexpr, HIDDEN: tl.constexpr, WIDTH: tl.constexpr, OUTPUTS: tl.constexpr,
    FIRST: tl.constexpr, END: tl.constexpr, ROWS: tl.constexpr, OUT: tl.constexpr, GATES: tl.constexpr,
    DOWN: tl.constexpr, QKV: tl.constexpr, SILU: tl.constexpr, ABOUT_ONE: tl.constexpr, LINE: tl.constexpr,
    COUNT: tl.constexpr,
) -> None:  # fmt: skip
    if FIRST <= 0:
        _parts(mixed, out, parts, count, INPUTS, HIDDEN, ROWS, OUT, COUNT)
    target = 0
    if FIRST <= 0 and END > 1:
        _ask_for(gate_up, 2 * WIDTH * HIDDEN, LINE, COUNT)
        target = _wait_for_all(counter, None, COUNT)
    if FIRST <= 1 and END > 1:
        _add_and_norm(parts, residual, norm_between, total, between, count, eps, HIDDEN, OUT[2], ABOUT_ONE, COUNT)
    if FIRST <= 1 and END > 2:
        _ask_for(down, WIDTH * HIDDEN, LINE, COUNT)
        target = _wait_for_all(counter, target, COUNT)
    if FIRST <= 2 and END > 2:
        for tile in range(tl.program_id(0), WIDTH // GATES[0], COUNT):
            tile_of_gates(between, gate_up, wide, count, tile, HIDDEN, WIDTH, ROWS, GATES[0], GATES[1], GATES[3], SILU)
    if FIRST <= 2 and END > 3:
        _ask_for(qkv, OUTPUTS * HIDDEN, LINE, COUNT)
        target = _wait_for_all(counter, target, COUNT)
    if FIRST <= 3 and END > 3:
        _parts(wide, down, parts, count, WIDTH, HIDDEN, ROWS, DOWN, COUNT)
    if FIRST <= 3 and END > 4:
        target = _wait_for_all(counter, target, COUNT)
    if FIRST <= 4 and END > 4:  # a row of `total` is read and written by one program alone
        _add_and_norm(parts, total, norm_after, total, read, count, eps, HIDDEN, DOWN[2], ABOUT_ONE, COUNT)
    if FIRST <= 4 and END > 5:
        _wait_for_all(counter, target, COUNT)
    if FIRST <= 5 and END > 5:
        _parts(read, qkv, result, count, HIDDEN, OUTPUTS, ROWS, QKV, COUNT)


@triton.jit
def _parts(
    x, weight, parts, count, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr,
    COUNT: tl.constexpr,
) -> None:  # fmt: skip
    """The parts [splits, n, outputs] of a product, each by a program."""
    for unit in range(tl.program_id(0), OUTPUTS // TILES[0] * TILES[2], COUNT):
        tile, split = unit // TILES[2], unit % TILES[2]
        part_of_product(
            x, weight, parts, count, tile, split, INPUTS, OUTPUTS, TILES[2], ROWS, TILES[0], TILES[1], TILES[3]
        )


@triton.jit
def _add_and_norm(
    parts, residual, norm, total, out, count, eps, WIDTH: tl.constexpr, SPLITS: tl.constexpr, ABOUT_ONE: tl.constexpr,
    COUNT: tl.constexpr,
) -> None:  # fmt: skip
    """As `fused_ops.add_and_norm`: `total` is `residual` and the sum of parts, `out` that normed; a program a row."""
    padded: tl.constexpr = triton.next_power_of_2(WIDTH)
    columns = tl.arange(0, padded)
    inside = columns < WIDTH
    weight = tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    if ABOUT_ONE:
        weight += 1.0
    for row in range(tl.program_id(0), count, COUNT):
        places = row * WIDTH + columns
        added = tl.zeros([padded], tl.float32)
        for split in tl.static_range(SPLITS):
            # Past the first cache, which other multiprocessors do not write into.
            added += tl.load(parts + split * count * WIDTH + places, mask=inside, other=0.0, cache_modifier=".cg")
        before = tl.load(residual + places, mask=inside, other=0.0, cache_modifier=".cg")
        whole = (before.to(tl.float32) + added.to(before.dtype).to(tl.float32)).to(before.dtype)
        tl.store(total + places, whole, mask=inside)
        exact = whole.to(tl.float32)
        shrink = tl.rsqrt(tl.sum(exact * exact, 0) / WIDTH + eps)
        tl.store(out + places, (exact * shrink * weight).to(before.dtype), mask=inside)


@triton.jit
def _ask_for(weight, SIZE: tl.constexpr, LINE: tl.constexpr, COUNT: tl.constexpr) -> None:
    """Have the `SIZE` numbers of a weight fetched into the cache that all programs share, a share by each."""
    lines: tl.constexpr = (SIZE + LINE - 1) // LINE
    share: tl.constexpr = (lines + COUNT - 1) // COUNT
    for first in tl.static_range(0, share, 128):
        line = tl.minimum(tl.program_id(0) * share + first + tl.arange(0, 128), lines - 1)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [weight + line * LINE], dtype=tl.int32, is_pure=False,
            pack=1,
        )  # fmt: skip


@triton.jit
def _wait_for_all(counter, before, COUNT: tl.constexpr) -> tl.tensor:
    """Until each of `COUNT` programs is here; what they wrote can be read then. Returns what the counter has come to.

    `before` is what it had come to when all were together last; None at the first time. One thread looks at it, and the
    others wait for that one: fewer looks leave the memory to programs that still compute.
    """
    tl.debug_barrier()
    arrived = tl.atomic_add(counter, 1, sem="release", scope="gpu")
    target = (arrived & -COUNT if before is None else before) + COUNT
    tl.inline_asm_elementwise(
        """
        {
        .reg .pred other, early;
        .reg .b32 thread, missing;
        mov.b32 $0, 0;
        mov.u32 thread, %tid.x;
        setp.ne.u32 other, thread, 0;
        @other bra over;
        again:
        ld.acquire.gpu.global.b32 $0, [$1];
        sub.s32 missing, $0, $2;
        setp.lt.s32 early, missing, 0;
        @early bra again;
        over:
        }
        """,
        "=&r,l,r", [counter, target], dtype=tl.int32, is_pure=False, pack=1,
    )  # fmt: skip
    tl.debug_barrier()
    return target
