"""Which decoder layers are computed by one kernel behind their attention, where there are few rows.

A decoding step of few rows takes as long as its weights take to read, if the memory is never idle; between small
kernels it is. So layers of a size at which it was measured to gain (`python -m benchmarks.speed.layers`) are computed
by programs that wait for each other instead; `behind_attention_kernel.py` says how.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from distillkit_builtin.local.fast.feed_forward import GatedLayer
from distillkit_builtin.local.fast.few_rows import MAX_ROWS, Tiles, measured_on
from distillkit_builtin.local.fast.layer_weights import LayerWeights
from distillkit_builtin.local.fast.projection import Projection


class LayerTiles(NamedTuple):
    """Of each of a layer's products; `out` and `down` have as many splits, all of them as many warps."""

    out: Tiles
    gates: Tiles
    down: Tiles
    qkv: Tiles


# One H200 (2026-11-30, torch 2.11), bfloat16, in a CUDA graph, weights of 31 MB a layer not in the cache; microseconds
# of 64 rows in kernels one after the other and in this one: 26.7 and 24.1, of 16 rows 26.6 and 22.9. Of 30 tilings, the
# fastest.
TILES = LayerTiles(Tiles(32, 64, 4, 6), Tiles(32, 64, 1, 6), Tiles(32, 64, 4, 6), Tiles(32, 64, 1, 6))
PROGRAMS = 128
"""That compute a layer together, one on each multiprocessor. A power of two, so that their counter may run over."""
DTYPES = (torch.bfloat16, torch.float16)
TRITON = (3, 4)
"""The first version that compiles the kernel (3.3 does not)."""
LAYER_BYTES = range(22 * 2**20, 2**25)
"""Of all weights that are read: of those of a 0.6B, whose last layer is the smallest. What is larger does not stay in
the cache that it is asked into, and what is smaller was not measured."""


@dataclass(frozen=True, slots=True)
class BehindAttention:
    """A layer behind its attention, up to the next layer's queries, keys and values, or to what the head reads."""

    out: Tensor
    """[hidden, heads * d]"""
    norm_between: Tensor
    """[hidden]"""
    gate_up: Tensor
    """[2 width, hidden], the gates first."""
    down: Tensor
    """[hidden, width]"""
    norm_after: Tensor
    """[hidden], of the next layer or the head."""
    qkv: Tensor | None
    """[outputs, hidden] of the next layer; None before the head."""
    activation: str
    """`silu` or `gelu_pytorch_tanh`."""
    eps: float
    about_one: bool
    """Whether norms multiply by one more than their weights."""
    counter: Tensor
    """[1] int32 by which programs wait for each other, 0 at first. Nothing else uses it while this is computed: what a
    backbone computes on a device goes through one stream, whichever thread asks for it."""

    @classmethod
    def of(
        cls,
        layer: LayerWeights,
        norm_after: Tensor | None,
        qkv: Projection | None,
        *,
        eps: float,
        about_one: bool,
        counter: Tensor,
    ) -> "BehindAttention | None":
        """None for a layer with other parts than the kernel knows, or of another size than those that gain by it."""
        feed_forward, between = layer.feed_forward, layer.norm_between
        if not isinstance(feed_forward, GatedLayer) or between is None or norm_after is None:
            return None
        if (layer.norm_behind_attention, layer.norm_behind, layer.residual_scale) != (None, None, None):
            return None
        products = [layer.out, feed_forward.gate_up, feed_forward.down, *([] if qkv is None else [qkv])]
        weights = [product.weight for product in products]
        plain = all(product.is_product and product.weight.is_contiguous() for product in products)
        if len({weight.dtype for weight in weights}) > 1 or weights[0].dtype not in DTYPES:
            return None
        if not plain or sum(weight.nbytes for weight in weights) not in LAYER_BYTES or not _divides(weights):
            return None
        out, gate_up, down = weights[:3]
        following = None if qkv is None else qkv.weight
        return cls(out, between, gate_up, down, norm_after, following, feed_forward.activation, eps, about_one, counter)

    def takes(self, residual: Tensor, mixed: Tensor) -> bool:
        """Whether the kernel computes this of hidden states [n, hidden] and mixed values [n, heads * d]."""
        read = residual, mixed, self.norm_between, self.norm_after
        plain = all(x.dtype == self.out.dtype and x.is_contiguous() for x in read) and not torch.is_grad_enabled()
        return plain and len(residual) <= MAX_ROWS


def runs_on(device: torch.device) -> bool:
    """Whether the kernel can run on a device, and was measured on such a one."""
    return measured_on(device) and _can_wait(device)


def _divides(weights: list[Tensor]) -> bool:
    """Whether each product, [out, gates, down and perhaps qkv], is made of whole tiles."""
    return all(
        len(weight) % (tiles.outputs * sides) == 0 and weight.shape[1] % (tiles.inputs * tiles.splits) == 0
        for weight, tiles, sides in zip(weights, TILES, (1, 2, 1, 1), strict=False)
    )


@functools.cache
def _can_wait(device: torch.device) -> bool:
    """Whether all programs run at once there, so that one may wait for another, and Triton can start them so."""
    import triton

    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return version >= TRITON and torch.cuda.get_device_properties(device).multi_processor_count >= PROGRAMS
