"""Matrix products of few rows, as in a step of decoding: which of them have a kernel of their own, and in which tiles.

Such a product is as long as its weights take to read. cuBLAS splits the inputs of small ones among more programs and
adds up the parts in a second kernel; `few_rows_kernel.py` leaves the parts to the kernel that reads them next, and
applies a gate's activation where the gate is computed. Only what was measured to gain by it is computed there
(`python -m benchmarks.speed.products`).
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

MAX_ROWS = 64


class Tiles(NamedTuple):
    """How a product is divided among programs, each of which computes all rows of some outputs."""

    outputs: int
    """That a program computes; of gates, and as many of what they multiply."""
    inputs: int
    """That are read at once."""
    splits: int
    """Parts of the inputs, each summed by a program of its own."""
    stages: int
    """Reads that are under way at once."""
    warps: int = 4


# One H200 (2026-11-30, torch 2.11), bfloat16, in a CUDA graph, weights not in the L2 cache; microseconds of 64 rows by
# cuBLAS and here, each with what follows it (adding up, residual and norm; the activation): [1024 x 2048] 8.7 and 7.5,
# [1024 x 3072] 9.7 and 8.9, gates [6144 x 1024] 8.2 and 6.9. Larger weights are cuBLAS's: [4096 x 4096] 18.7 and 19.1,
# [4096 x 12288] 38.1 and 37.3, gates [24576 x 4096] 57.3 and 59.1. What is smaller was not measured.
PARTS = Tiles(32, 128, 2, 5)
PARTS_BYTES = range(2**22, 2**24)
"""Weights of a product whose parts the next kernel adds up."""
GATES = Tiles(32, 128, 1, 4)
GATES_BYTES = range(2**23, 2**25)
"""Weights of gates, and of what they multiply, that are computed together with the activation."""


def split_tiles(x: Tensor, weight: Tensor) -> Tiles | None:
    """Those of a product whose parts the next kernel adds up; None where it was not measured to be faster."""
    return PARTS if _fits(x, weight, len(weight), PARTS) and weight.nbytes in PARTS_BYTES else None


def gate_tiles(x: Tensor, gate_up: Tensor) -> Tiles | None:
    """Those of gates together with what they multiply; None where it was not measured to be faster."""
    fits = _fits(x, gate_up, len(gate_up) // 2, GATES)
    return GATES if fits and gate_up.nbytes in GATES_BYTES else None


def _fits(x: Tensor, weight: Tensor, outputs: int, tiles: Tiles) -> bool:
    """Whether the kernel can compute this in whole tiles, on a device where it was measured."""
    whole = outputs % tiles.outputs == 0 and x.shape[1] % (tiles.inputs * tiles.splits) == 0
    plain = x.is_contiguous() and weight.is_contiguous() and not torch.is_grad_enabled()
    few = len(x) <= MAX_ROWS and x.dtype == weight.dtype and x.dtype in (torch.bfloat16, torch.float16)
    return few and whole and plain and measured_on(x.device)


@functools.cache
def measured_on(device: torch.device) -> bool:
    """Whether the device is of the kind that all this was measured on: NVIDIA's Hopper."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) == (9, 0)
