"""A decoder layer behind its attention in a decoding step: in kernels one after the other, and in one kernel.

python -m benchmarks.speed.layers
python -m benchmarks.speed.layers main --rows 64 --sweep       # other tiles: a minute, for they must be compiled

In a CUDA graph over so many layers that no weight stays in the cache; the best of five replays. Up to the next layer's
queries, keys and values.
"""

import argparse
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.speed.markdown import heading, table
from benchmarks.speed.products import BYTES_PER_S, COLD_BYTES, SHOWN, Inputs, microseconds, products
from benchmarks.speed.shapes import SHAPES, ModelShape
from distillkit_builtin.local.fast.behind_attention import TILES, BehindAttention, LayerTiles, runs_on
from distillkit_builtin.local.fast.feed_forward import GatedLayer
from distillkit_builtin.local.fast.few_rows import Tiles
from distillkit_builtin.local.fast.projection import Projection
from distillkit_builtin.local.model.fused_ops import add_and_norm

EPS = 1e-6
SPLIT = tuple(
    Tiles(*sizes)
    for sizes in (
        (32, 64, 4, 4), (32, 64, 4, 6), (32, 64, 4, 8), (32, 128, 4, 3), (32, 128, 4, 4), (64, 64, 8, 4),
        (64, 128, 8, 2), (64, 64, 4, 6), (32, 128, 2, 5), (128, 64, 8, 4),
    )
)  # fmt: skip
WHOLE = tuple(
    Tiles(*sizes)
    for sizes in (
        (16, 64, 1, 6), (16, 128, 1, 5), (32, 64, 1, 4), (32, 64, 1, 6), (32, 64, 1, 8), (32, 128, 1, 4),
        (64, 32, 1, 8), (64, 64, 1, 4), (64, 64, 1, 6), (64, 64, 1, 8), (64, 128, 1, 3),
    )
)  # fmt: skip
TRIED = (
    *(TILES._replace(out=tiles, down=tiles) for tiles in SPLIT),
    *(TILES._replace(gates=tiles) for tiles in WHOLE),
    *(TILES._replace(qkv=tiles) for tiles in WHOLE),
)
"""What `--sweep` tries: other tiles of one product, or of the two that have as many splits."""


@dataclass(frozen=True)
class Layers:
    """Random ones, and what they read."""

    layers: list[BehindAttention]
    residual: Tensor
    """[rows, hidden] that each layer reads."""
    mixed: Tensor
    """[rows, heads * d] that its attention gave."""

    @classmethod
    def of(cls, model: ModelShape, rows: int) -> "Layers":
        """As many as do not stay in the cache."""
        some = partial(torch.randn, device="cuda", dtype=torch.bfloat16)
        qkv, out, gate_up, down = products(model)
        size = sum(product.bytes for product in (qkv, out, gate_up, down))
        counter = torch.zeros(1, dtype=torch.int32, device="cuda")

        def weight(of: Inputs) -> Tensor:
            return some(of.product.outputs, of.product.inputs) / of.product.inputs**0.5

        inputs = [Inputs.of(product, 1) for product in (out, gate_up, down, qkv)]
        layers = []
        for _ in range(max(2, math.ceil(COLD_BYTES / size))):
            weights = [weight(each) for each in inputs]
            norms = [some(model.hidden) for _ in range(2)]
            layers.append(
                BehindAttention(weights[0], norms[0], *weights[1:3], norms[1], weights[3], "silu", EPS, False, counter)
            )
        return cls(layers, some(rows, model.hidden), some(rows, out.inputs))

    @property
    def bytes(self) -> int:
        """Of one layer's weights."""
        layer = self.layers[0]
        assert layer.qkv is not None
        return sum(weight.nbytes for weight in (layer.out, layer.gate_up, layer.down, layer.qkv))

    def in_kernels(self, layer: BehindAttention) -> tuple[Tensor, Tensor]:
        """As `FastBackbone.layer` computes it where the one kernel is not taken."""
        assert layer.qkv is not None
        out, feed_forward = (
            Projection(layer.out, None),
            GatedLayer(Projection(layer.gate_up, None), Projection(layer.down, None), layer.activation),
        )
        how = None, layer.eps, layer.about_one
        residual, read = add_and_norm(self.residual, out.parts(self.mixed), None, layer.norm_between, *how)
        residual, read = add_and_norm(residual, feed_forward(read), None, layer.norm_after, *how)
        return residual, Projection(layer.qkv, None)(read)

    def at_once(self, tiles: LayerTiles, layer: BehindAttention) -> tuple[Tensor, Tensor]:
        """In one kernel."""
        # Triton comes with PyTorch for CUDA alone.
        from distillkit_builtin.local.fast.behind_attention_kernel import behind_attention

        return behind_attention(layer, tiles, self.residual, self.mixed)

    def time(self, work: Callable[[BehindAttention], object]) -> float:
        """Microseconds of a layer."""
        return microseconds(work, self.layers)

    def apart(self) -> float:
        """How far both are from each other, as a share of the largest number."""
        pairs = zip(self.at_once(TILES, self.layers[0]), self.in_kernels(self.layers[0]), strict=True)
        return max(float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cuda = sorted(name for name, shape in SHAPES.items() if shape.device == "cuda")
    parser.add_argument("shapes", nargs="*", default=["main"], help=f"of their students: {' '.join(on_cuda)}")
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 16], choices=range(1, 65), metavar="1..64")
    parser.add_argument("--sweep", action="store_true", help="print the fastest tiles of many")
    options = parser.parse_args()
    if unknown := set(options.shapes) - set(on_cuda):
        parser.error(f"{unknown.pop()!r} is none of {' '.join(on_cuda)}")
    if not torch.cuda.is_available() or not runs_on(torch.device("cuda", torch.cuda.current_device())):
        parser.error("this needs a Hopper GPU, and Triton 3.4 or later")
    print(heading("cuda", ("torch", "triton")))
    columns = ["us a layer", "rows", "bytes / 4.3 TB/s", "in kernels"]
    columns += ["at once: fastest (outputs, inputs, splits, stages, warps)"] if options.sweep else ["at once", "apart"]
    for line in table(columns, _rows(options.shapes, options.rows, sweep=options.sweep)):
        print(line, flush=True)


@torch.inference_mode()
def _rows(shapes: Sequence[str], rows: Sequence[int], *, sweep: bool) -> Iterator[Sequence[str]]:
    torch.manual_seed(0)
    for name, count in itertools.product(shapes, rows):
        layers = Layers.of(SHAPES[name].student, count)
        read, usual = layers.bytes / BYTES_PER_S * 1e6, layers.time(layers.in_kernels)
        if sweep:
            found = sorted((layers.time(partial(layers.at_once, tiles)), tiles) for tiles in TRIED)
            cells = ["; ".join(f"{time:.1f} {_changed(tiles)}" for time, tiles in found[:SHOWN])]
        else:
            cells = [f"{layers.time(partial(layers.at_once, TILES)):.1f}", f"{layers.apart():.1e}"]
        yield [name, str(count), f"{read:.1f}", f"{usual:.1f}", *cells]


def _changed(tiles: LayerTiles) -> str:
    """Where these differ from those that are taken."""
    pairs = zip(tiles._fields, tiles, TILES, strict=True)
    return " ".join(f"{name} {tuple(one)}" for name, one, taken in pairs if one != taken) or "as taken"


if __name__ == "__main__":
    main()
