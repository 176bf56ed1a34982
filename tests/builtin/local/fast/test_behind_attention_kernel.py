"""A layer behind its attention against PyTorch's, on a GPU or in Triton's interpreter (`make test-kernels`)."""

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from distillkit_builtin.local.fast.behind_attention import TILES, BehindAttention, LayerTiles
from distillkit_builtin.local.fast.behind_attention_kernel import behind_attention
from distillkit_builtin.local.fast.few_rows import Tiles
from distillkit_builtin.local.model.fused_ops import add_and_norm, gated

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# What runs are computed in; the interpreter multiplies it as if it were integers, and float16 takes the same way.
DTYPE = torch.bfloat16 if ON_GPU else torch.float16
CLOSE = 8e-2 if ON_GPU else 8e-3
SMALL = LayerTiles(Tiles(32, 32, 2, 2), Tiles(16, 32, 1, 2), Tiles(64, 32, 2, 2), Tiles(32, 64, 1, 2))
HIDDEN, MIXED, WIDTH, OUTPUTS = 64, 128, 192, 96
EPS = 1e-5


def numbers(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(shape, generator=generator).to(DEVICE, DTYPE)


def layer(
    hidden: int = HIDDEN,
    mixed: int = MIXED,
    width: int = WIDTH,
    outputs: int | None = OUTPUTS,
    activation: str = "silu",
    about_one: bool = False,
) -> BehindAttention:
    return BehindAttention(
        out=numbers(hidden, mixed) / mixed**0.5,
        norm_between=numbers(hidden, seed=1),
        gate_up=numbers(2 * width, hidden) / hidden**0.5,
        down=numbers(hidden, width) / width**0.5,
        norm_after=numbers(hidden, seed=2),
        qkv=None if outputs is None else numbers(outputs, hidden) / hidden**0.5,
        activation=activation,
        eps=EPS,
        about_one=about_one,
        counter=torch.zeros(1, dtype=torch.int32, device=DEVICE),
    )


def by_pytorch(some: BehindAttention, residual: Tensor, mixed: Tensor) -> tuple[Tensor, Tensor]:
    """Products in float32, rounded as the kernel does."""

    def product(x: Tensor, weight: Tensor) -> Tensor:
        return (x.float() @ weight.float().t()).to(DTYPE)

    how = None, EPS, some.about_one
    residual, between = add_and_norm(residual, product(mixed, some.out), None, some.norm_between, *how)
    wide = gated(product(between, some.gate_up), some.activation)
    residual, read = add_and_norm(residual, product(wide, some.down), None, some.norm_after, *how)
    return residual, read if some.qkv is None else product(read, some.qkv)


def close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("rows", [1, 3, 17, 64])
@pytest.mark.parametrize("outputs", [OUTPUTS, None])
@torch.inference_mode()
def test_each_phase_computes_its_part_of_the_layer(rows: int, outputs: int | None) -> None:
    some, residual, mixed = layer(outputs=outputs), numbers(rows, HIDDEN), numbers(rows, MIXED)
    kept = residual.clone()
    close(behind_attention(some, SMALL, residual, mixed, at_once=False), by_pytorch(some, residual, mixed))
    assert torch.equal(residual, kept)
    assert some.counter.item() == 0


@pytest.mark.parametrize(("activation", "about_one"), [("gelu_pytorch_tanh", False), ("silu", True)])
@torch.inference_mode()
def test_other_activations_and_norms(activation: str, about_one: bool) -> None:
    some = layer(activation=activation, about_one=about_one)
    residual, mixed = numbers(5, HIDDEN), numbers(5, MIXED)
    close(behind_attention(some, SMALL, residual, mixed, at_once=False), by_pytorch(some, residual, mixed))


@torch.inference_mode()
def test_rows_that_are_missing_are_not_read() -> None:
    """Of tensors that go on behind them, as memory does."""
    some, residual, mixed = layer(), numbers(16, HIDDEN), numbers(16, MIXED)
    residual[3:], mixed[3:] = float("nan"), float("nan")
    found = behind_attention(some, SMALL, residual[:3], mixed[:3], at_once=False)
    close(found, by_pytorch(some, residual[:3], mixed[:3]))


@torch.inference_mode()
def test_a_layer_of_a_real_shape_in_its_own_tiles() -> None:
    """Qwen3-0.6B's."""
    some = layer(1024, 2048, 3072, 4096)
    residual, mixed = numbers(3, 1024), numbers(3, 2048)
    close(behind_attention(some, TILES, residual, mixed, at_once=False), by_pytorch(some, residual, mixed))


@pytest.mark.skipif(not ON_GPU, reason="programs that wait for each other need a GPU")
@pytest.mark.parametrize("rows", [1, 33, 64])
@torch.inference_mode()
def test_all_phases_at_once_give_the_same_numbers(rows: int) -> None:
    """To the bit, many times in one graph, from a counter that runs over on the way."""
    layers = [layer(1024, 2048, 3072, outputs) for outputs in (4096, None)]
    residual, mixed = numbers(rows, 1024), numbers(rows, 2048)
    for some in layers:
        some.counter.fill_(2**31 - 128 * 7)
        expected = behind_attention(some, TILES, residual, mixed, at_once=False)
        behind_attention(some, TILES, residual, mixed)
        graph, found = torch.cuda.CUDAGraph(), []
        with torch.cuda.graph(graph):
            found.extend(behind_attention(some, TILES, residual, mixed) for _ in range(50))
        for _ in range(20):
            graph.replay()
        torch.cuda.synchronize()
        assert all(torch.equal(ours, theirs) for pair in found for ours, theirs in zip(pair, expected, strict=True))
        assert some.counter.item() < 0
