"""Products of few rows against PyTorch's in float32, on a GPU or in Triton's interpreter (`make test-kernels`)."""

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from distillkit_builtin.local.fast import few_rows, few_rows_kernel
from distillkit_builtin.local.fast.feed_forward import GatedLayer
from distillkit_builtin.local.fast.few_rows import Tiles
from distillkit_builtin.local.fast.projection import Projection
from distillkit_builtin.local.model.fused_ops import add_and_norm, gated

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = [1, 3, 17, 64]
# The interpreter multiplies bfloat16 as if it were integers; float16 takes the same way through the kernel.
DTYPE = torch.float16


def numbers(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, DTYPE)


def in_float32(x: Tensor, weight: Tensor) -> Tensor:
    return x.float() @ weight.float().t()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("splits", [1, 2, 4])
def test_a_product_or_the_sum_of_its_parts_is_pytorchs(rows: int, splits: int) -> None:
    x, weight = numbers(rows, 256), numbers(96, 256)
    found = few_rows_kernel.product(x, weight, Tiles(32, 32, splits, 2))
    assert found.dtype == (DTYPE if splits == 1 else torch.float32)
    assert found.shape == ((rows, 96) if splits == 1 else (splits, rows, 96))
    whole = found.float() if splits == 1 else found.sum(0)
    torch.testing.assert_close(whole, in_float32(x, weight), rtol=2e-3 if splits == 1 else 1e-5, atol=1e-3)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("activation", ["silu", "gelu_pytorch_tanh"])
def test_a_gated_product_is_the_activation_of_pytorchs(rows: int, activation: str) -> None:
    x, gate_up = numbers(rows, 128), numbers(2 * 64, 128) / 8
    gate_up[0], gate_up[1] = 8 * gate_up[0], -8 * gate_up[1]  # far out on both sides of the activation
    found = few_rows_kernel.gated_product(x, gate_up, Tiles(32, 64, 1, 2), activation)
    expected = gated(in_float32(x, gate_up).to(DTYPE).float(), activation)
    torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)


def test_the_same_inputs_give_the_same_numbers() -> None:
    x, weight = numbers(17, 256), numbers(128, 256)
    for compute in (
        lambda: few_rows_kernel.product(x, weight, Tiles(32, 64, 2, 2)),
        lambda: few_rows_kernel.gated_product(x, weight, Tiles(32, 64, 1, 2), "silu"),
    ):
        assert torch.equal(compute(), compute())


def test_rows_that_are_missing_are_not_read() -> None:
    """Of a tensor that goes on behind them, as memory does."""
    longer, weight = numbers(16, 64), numbers(32, 64)
    longer[3:] = float("nan")
    found = few_rows_kernel.product(longer[:3], weight, Tiles(32, 64, 1, 2))
    torch.testing.assert_close(found.float(), in_float32(longer[:3], weight), rtol=2e-3, atol=1e-3)


@torch.inference_mode()
def test_a_layer_of_a_real_shape_is_computed_in_its_own_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen3-0.6B's feed-forward layer, up to what the next one reads."""
    monkeypatch.setattr(few_rows, "measured_on", lambda device: True)
    gate_up, down = numbers(2 * 3072, 1024) / 32, numbers(1024, 3072) / 32
    hidden, residual, norm = numbers(3, 1024), numbers(3, 1024), numbers(1024)
    parts = GatedLayer(Projection(gate_up, None), Projection(down, None), "silu")(hidden)
    assert parts.shape == (2, 3, 1024)
    wide = in_float32(hidden, gate_up).to(DTYPE)
    whole = in_float32(gated(wide, "silu"), down).to(DTYPE)
    how = None, norm, None, 1e-6, False
    for ours, theirs in zip(add_and_norm(residual, parts, *how), add_and_norm(residual, whole, *how), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=5e-3, atol=5e-3)
