"""How often what stands between products is compiled: for all sizes once, or once a width."""

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from distillkit_builtin.local.model import fused_ops


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Counts, where a function is compiled here as it is on CUDA."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    monkeypatch.setattr(fused_ops, "_compiles_on", lambda first: True)
    torch.compiler.reset()
    return counter


def gates(rows: int, width: int) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows + width))


@pytest.mark.parametrize(("by_width", "widths_compiled"), [(True, 2), (False, 1)])
def test_rows_vary_freely_and_each_width_is_known_to_the_compiler(
    by_width: bool, widths_compiled: int, compiled: CompileCounter
) -> None:
    make = fused_ops.fused_by_width if by_width else fused_ops.fused
    function = make(fused_ops.gated.__wrapped__)
    for rows, width in ((64, 32), (17, 32), (300, 32), (64, 48), (5, 48), (9, 32)):
        x = gates(rows, width)
        expected = fused_ops.gated.__wrapped__(x, "silu")
        assert torch.equal(function(x, "silu"), expected)
    assert compiled.frame_count == widths_compiled


def test_where_nothing_compiles_the_function_itself_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_ops, "can_compile", lambda: pytest.fail("asked on a CPU"))
    x = gates(3, 8)
    assert torch.equal(fused_ops.gated(x, "silu"), fused_ops.gated.__wrapped__(x, "silu"))
