"""Matrix products of at most `few_rows.MAX_ROWS` rows, in Triton. `few_rows.py` says which, and why.

A program computes all rows of a tile of outputs, so that each weight is read once. Nothing is added up by atomic
operations: the same inputs give the same numbers each time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from distillkit_builtin.local.fast.few_rows import Tiles

MIN_ROWS = 16
"""Rows of a matrix product on tensor cores; those that are missing are padding."""
GELU_SLOPE, GELU_CUBE = tl.constexpr(1.5957691216057308), tl.constexpr(0.044715)
"""2 sqrt(2 / pi), and the factor of the cube, in GELU's approximation (https://arxiv.org/abs/1606.08415)."""


def product(x: Tensor, weight: Tensor, tiles: Tiles) -> Tensor:
    """`x @ weight.T` of `x` [n, inputs] and `weight` [outputs, inputs], both contiguous, in whole tiles.

    [n, outputs] in the dtype of `x`; of several splits its float32 parts [splits, n, outputs].
    """
    (count, inputs), outputs = x.shape, len(weight)
    whole = tiles.splits == 1
    out = x.new_empty(count, outputs) if whole else x.new_empty(tiles.splits, count, outputs, dtype=torch.float32)
    _product[(outputs // tiles.outputs, tiles.splits)](
        x, weight, out, count, INPUTS=inputs, OUTPUTS=outputs, SPLITS=tiles.splits, ROWS=_padded(count),
        TILE=tiles.outputs, STEP=tiles.inputs, STAGES=tiles.stages, num_warps=tiles.warps,
    )  # fmt: skip
    return out


def gated_product(x: Tensor, gate_up: Tensor, tiles: Tiles, activation: str) -> Tensor:
    """`activation(gate) * up` [n, width] of `x @ gate_up.T` [n, 2 width], the gate first; see `fused_ops.gated`."""
    (count, inputs), width = x.shape, len(gate_up) // 2
    out = x.new_empty(count, width)
    _gated_product[(width // tiles.outputs,)](
        x, gate_up, out, count, INPUTS=inputs, WIDTH=width, ROWS=_padded(count), TILE=tiles.outputs,
        STEP=tiles.inputs, STAGES=tiles.stages, SILU=activation == "silu", num_warps=tiles.warps,
    )  # fmt: skip
    return out


def _padded(rows: int) -> int:
    return max(MIN_ROWS, int(triton.next_power_of_2(rows)))


@triton.jit(do_not_specialize=["count"])
def _product(
    x, weight, out, count, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, SPLITS: tl.constexpr, ROWS: tl.constexpr,
    TILE: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    part_of_product(x, weight, out, count, tile, split, INPUTS, OUTPUTS, SPLITS, ROWS, TILE, STEP, STAGES)


@triton.jit
def part_of_product(
    x, weight, out, count, tile, split, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, SPLITS: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of outputs, over one of the splits of the inputs, into `out` [splits, n, outputs]."""
    part: tl.constexpr = INPUTS // SPLITS
    rows, steps = tl.arange(0, ROWS)[:, None], split * part + tl.arange(0, STEP)
    columns = tile * TILE + tl.arange(0, TILE)[None, :]
    read, weights = x + rows * INPUTS + steps[None, :], weight + columns * INPUTS + steps[:, None]
    total = tl.zeros([ROWS, TILE], tl.float32)
    for _ in tl.range(0, part, STEP, num_stages=STAGES):
        total = tl.dot(tl.load(read, mask=rows < count, other=0.0), tl.load(weights), total)
        read += STEP
        weights += STEP
    target = out + (split * count + rows) * OUTPUTS + columns
    tl.store(target, total.to(out.dtype.element_ty), mask=rows < count)


@triton.jit(do_not_specialize=["count"])
def _gated_product(
    x, gate_up, out, count, INPUTS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    STEP: tl.constexpr, STAGES: tl.constexpr, SILU: tl.constexpr,
) -> None:  # fmt: skip
    tile_of_gates(x, gate_up, out, count, tl.program_id(0), INPUTS, WIDTH, ROWS, TILE, STEP, STAGES, SILU)


@triton.jit
def tile_of_gates(
    x, gate_up, out, count, tile, INPUTS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
    STEP: tl.constexpr, STAGES: tl.constexpr, SILU: tl.constexpr,
) -> None:  # fmt: skip
    """One tile of `out` [n, width]."""
    rows, steps = tl.arange(0, ROWS)[:, None], tl.arange(0, STEP)
    columns = tile * TILE + tl.arange(0, TILE)[None, :]
    read, gates = x + rows * INPUTS + steps[None, :], gate_up + columns * INPUTS + steps[:, None]
    ups = gates + WIDTH * INPUTS
    gate, up = tl.zeros([ROWS, TILE], tl.float32), tl.zeros([ROWS, TILE], tl.float32)
    for _ in tl.range(0, INPUTS, STEP, num_stages=STAGES):
        some = tl.load(read, mask=rows < count, other=0.0)
        gate = tl.dot(some, tl.load(gates), gate)
        up = tl.dot(some, tl.load(ups), up)
        read += STEP
        gates += STEP
        ups += STEP
    # Rounded as the product that the activation follows elsewhere.
    gate, up = gate.to(out.dtype.element_ty).to(tl.float32), up.to(out.dtype.element_ty).to(tl.float32)
    # 1 + tanh(z) is 2 sigmoid(2 z).
    slope = gate if SILU else GELU_SLOPE * (gate + GELU_CUBE * gate * gate * gate)
    tl.store(out + rows * WIDTH + columns, (gate * tl.sigmoid(slope) * up).to(out.dtype.element_ty), mask=rows < count)
