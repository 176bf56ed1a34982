"""The matrix products of a decoding step, by cuBLAS and by the kernel for few rows, alone and with what follows them.

python -m benchmarks.speed.products
python -m benchmarks.speed.products main --rows 64 --sweep       # other tiles: minutes, for they must be compiled

In a CUDA graph over so many weights that none stays in the cache; the best of five replays.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed.markdown import heading, table
from benchmarks.speed.shapes import SHAPES, ModelShape
from distillkit_builtin.local.fast.few_rows import GATES, PARTS, Tiles, gate_tiles, split_tiles
from distillkit_builtin.local.model.fused_ops import add_and_norm, gated, joined

BYTES_PER_S = 4.3e12
"""That an H200 reads of large tensors."""
COLD_BYTES = 256e6
"""Of all copies of a weight: several times the cache of 50 MB."""
REPLAYS = 5
TRIED = tuple(
    Tiles(outputs, inputs, splits, stages)
    for outputs, inputs, stages in (
        (16, 128, 6), (32, 64, 6), (32, 128, 3), (32, 128, 4), (32, 128, 5), (64, 64, 6), (64, 128, 4), (128, 64, 5),
    )
    for splits in (1, 2, 4)
)  # fmt: skip
"""What `--sweep` tries, where it divides a product."""
SHOWN = 5
"""Of these, the fastest."""
T = TypeVar("T")


@dataclass(frozen=True)
class Product:
    """One of a decoder layer."""

    name: str
    outputs: int
    inputs: int

    @property
    def bytes(self) -> int:
        """Of its weights, in 16 bits."""
        return 2 * self.outputs * self.inputs

    @property
    def tiles(self) -> Tiles:
        """What the kernel takes for such a product, or would take."""
        if self.name == "gate_up":
            return GATES
        if self.name == "qkv":
            return PARTS._replace(splits=1)
        return PARTS

    def fits(self, tiles: Tiles) -> bool:
        """Whether the kernel can compute it in these; nothing adds up parts of gates or of qkv."""
        outputs = self.outputs // 2 if self.name == "gate_up" else self.outputs
        whole = outputs % tiles.outputs == 0 and self.inputs % (tiles.inputs * tiles.splits) == 0
        return whole and (tiles.splits == 1 or self.name in ("out", "down"))


def products(model: ModelShape) -> list[Product]:
    """Those of one layer."""
    query, key = model.heads * model.head_dim, model.kv_heads * model.head_dim
    return [
        Product("qkv", query + 2 * key, model.hidden),
        Product("out", model.hidden, query),
        Product("gate_up", 2 * model.ffn, model.hidden),
        Product("down", model.hidden, model.ffn),
    ]


@dataclass(frozen=True)
class Inputs:
    """What a product reads besides its weights, and the next kernel besides the product."""

    product: Product
    x: Tensor
    residual: Tensor
    norm: Tensor

    @classmethod
    def of(cls, product: Product, rows: int) -> "Inputs":
        """Random ones."""
        some = partial(torch.randn, device="cuda", dtype=torch.bfloat16)
        return cls(product, some(rows, product.inputs), some(rows, product.outputs), some(product.outputs))

    def weights(self) -> list[Tensor]:
        """As many as do not stay in the cache."""
        count = max(2, math.ceil(COLD_BYTES / self.product.bytes))
        size = self.product.outputs, self.product.inputs
        return [torch.randn(size, device="cuda", dtype=torch.bfloat16) * 0.02 for _ in range(count)]

    def cublas(self, weight: Tensor) -> Tensor:
        """The product."""
        return functional.linear(self.x, weight)

    def ours(self, tiles: Tiles, weight: Tensor) -> Tensor:
        """The product or its parts; of gates with the activation."""
        # Triton comes with PyTorch for CUDA alone.
        from distillkit_builtin.local.fast.few_rows_kernel import gated_product, product

        if self.product.name == "gate_up":
            return gated_product(self.x, weight, tiles, "silu")
        return product(self.x, weight, tiles)

    def followed(self, work: Callable[[Tensor], Tensor], weight: Tensor) -> object:
        """A product, and the kernel that reads it: of queries, keys and values, that is attention, and left out."""
        found = work(weight)
        if self.product.name == "gate_up":
            return found if found.shape[1] * 2 == self.product.outputs else gated(found, "silu")
        if self.product.name == "qkv":
            return found
        return add_and_norm(self.residual, found, None, self.norm, None, 1e-6, False)

    def apart(self, tiles: Tiles, weight: Tensor) -> tuple[float, float]:
        """How far cuBLAS and ours are from float32, as shares of the largest number."""
        expected, theirs = self.x.float() @ weight.float().t(), self.cublas(weight)
        if self.product.name == "gate_up":
            gate, up = expected.chunk(2, dim=1)
            expected, theirs = functional.silu(gate) * up, gated(theirs, "silu")
        ours = joined(self.ours(tiles, weight), self.x.dtype)
        largest = expected.abs().max()
        return tuple(float((found - expected).abs().max() / largest) for found in (theirs, ours))

    @property
    def taken(self) -> bool:
        """Whether decoding has this product computed by the kernel."""
        product = self.product
        weight = torch.empty(product.outputs, product.inputs, device=self.x.device, dtype=self.x.dtype)
        if product.name == "gate_up":
            return gate_tiles(self.x, weight) is not None
        return product.name != "qkv" and split_tiles(self.x, weight) is not None


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    on_cuda = sorted(name for name, shape in SHAPES.items() if shape.device == "cuda")
    parser.add_argument("shapes", nargs="*", default=["main", "8b"], help=f"of their students: {' '.join(on_cuda)}")
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 16], choices=range(1, 65), metavar="1..64")
    parser.add_argument("--sweep", action="store_true", help="print the fastest tiles of many")
    options = parser.parse_args()
    unknown = set(options.shapes) - set(on_cuda)
    if unknown or not torch.cuda.is_available():
        parser.error(f"{unknown.pop()!r} is none of {' '.join(on_cuda)}" if unknown else "this needs a GPU")
    print(heading("cuda", ("torch", "triton")))
    cells = _sweep if options.sweep else _row
    for line in table(_columns(sweep=options.sweep), _rows(cells, options.shapes, options.rows)):
        print(line, flush=True)


@torch.inference_mode()
def _rows(
    cells: Callable[[Inputs], Sequence[str]], shapes: Sequence[str], rows: Sequence[int]
) -> Iterator[Sequence[str]]:
    torch.manual_seed(0)
    for count in rows:
        for name in shapes:
            for product in products(SHAPES[name].student):
                size = f"{name}, {product.name} [{product.outputs} x {product.inputs}]"
                read = f"{product.bytes / BYTES_PER_S * 1e6:.1f}"
                yield [size, str(count), read, *cells(Inputs.of(product, count))]


def _columns(*, sweep: bool) -> Sequence[str]:
    first = ["us", "rows", "bytes / 4.3 TB/s"]
    if sweep:
        return [*first, "fastest, with what follows (outputs, inputs, splits, stages, warps)"]
    return [
        *first,
        "cuBLAS",
        "and what follows",
        "kernel",
        "and what follows",
        "taken",
        "tiles",
        "apart: cuBLAS",
        "kernel",
    ]


def _row(inputs: Inputs) -> Sequence[str]:
    weights, tiles = inputs.weights(), inputs.product.tiles
    ours = partial(inputs.ours, tiles)
    times = [
        f"{microseconds(work, weights):.1f}"
        for work in (inputs.cublas, partial(inputs.followed, inputs.cublas), ours, partial(inputs.followed, ours))
    ]
    apart = [f"{share:.1e}" for share in inputs.apart(tiles, weights[0])]
    return [*times, "yes" if inputs.taken else "no", str(tuple(tiles)), *apart]


def _sweep(inputs: Inputs) -> Sequence[str]:
    weights = inputs.weights()
    found = [
        (microseconds(partial(inputs.followed, partial(inputs.ours, tiles)), weights), tuple(tiles))
        for tiles in TRIED
        if inputs.product.fits(tiles)
    ]
    return ["; ".join(f"{time:.1f} {tiles}" for time, tiles in sorted(found)[:SHOWN])]


def microseconds(work: Callable[[T], object], weights: Sequence[T]) -> float:
    """Of the work with one weight, or one layer's, where it is done with all in turn, in a graph."""
    for _ in range(2):  # compiled, and its workspaces are there
        work(weights[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for weight in weights:
            work(weight)
    graph.replay()
    times = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return 1e3 * min(times) / len(weights)


if __name__ == "__main__":
    main()
