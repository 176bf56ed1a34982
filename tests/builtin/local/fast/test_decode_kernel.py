"""The Triton kernel against PyTorch's own operations, on a GPU or in Triton's interpreter (`make test-kernels`)."""

import os

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton needs a GPU, or TRITON_INTERPRET=1", allow_module_level=True)

from distillkit_builtin.local.fast import decode_kernel
from distillkit_builtin.local.fast.attention import plain_decode_attention
from distillkit_builtin.local.fast.backbone import AttentionInputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def new_tokens(
    count: int, heads: int, kv_heads: int, width: int, *, normed: bool, window: int | None, dtype: torch.dtype
) -> AttentionInputs:
    """As the backbone passes them: queries, keys and values are views of one product."""
    qkv = torch.randn(count, heads + 2 * kv_heads, width, device=DEVICE, dtype=dtype)
    both, value = qkv.split([heads + kv_heads, kv_heads], dim=1)
    weights = [torch.rand(width, device=DEVICE, dtype=dtype) if normed else None for _ in range(2)]
    cos, sin = (torch.randn(count, width, device=DEVICE) for _ in range(2))
    about_one = kv_heads == 2  # as Gemma's norms
    return AttentionInputs(both, value, weights[0], weights[1], cos, sin, 1e-6, about_one, width**-0.5, window)


def both_ways(new: AttentionInputs, length: int, positions: Tensor) -> list[list[Tensor]]:
    """What comes out, and the keys and values that are kept, by PyTorch's operations and by the kernel."""
    slots, (_, kv_heads, width) = len(positions) + 1, new.value.shape
    shape = (slots, kv_heads, length, width)
    before = [torch.randn(shape, device=DEVICE, dtype=new.value.dtype) for _ in range(2)]
    plain, fast = ([x.clone() for x in before] for _ in range(2))
    return [
        [plain_decode_attention(new, plain[0], plain[1], positions, length), *plain],
        [decode_kernel.fused_decode_attention(new, fast[0], fast[1], positions), *fast],
    ]


# The interpreter multiplies bfloat16 as if it were integers; float16 takes the same way through the kernel.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3)])
@pytest.mark.parametrize("programs", [1, 512])
@pytest.mark.parametrize("window", [None, 1, 40, 290])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "normed"), [(4, 2, 8, True), (6, 2, 64, False), (3, 1, 24, True)]
)
def test_attention_and_what_is_kept_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    tolerance: float,
    programs: int,
    window: int | None,
    heads: int,
    kv_heads: int,
    width: int,
    normed: bool,
) -> None:
    monkeypatch.setattr(decode_kernel, "PROGRAMS", programs)  # 1: no row's past is split
    torch.manual_seed(0)
    new = new_tokens(4, heads, kv_heads, width, normed=normed, window=window, dtype=dtype)
    plain, fast = both_ways(new, 600, torch.tensor([0, 31, 300, 599], device=DEVICE))
    for theirs, ours in zip(plain, fast, strict=True):
        assert torch.allclose(theirs, ours, rtol=10 * tolerance, atol=tolerance)
