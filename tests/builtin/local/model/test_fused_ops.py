"""What stands between products where it is compiled: how often, and what of."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounter
from torch._functorch.aot_autograd import make_boxed_func

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


def test_as_many_widths_as_a_run_has_models_are_compiled_on_each_thread(compiled: CompileCounter) -> None:
    """More than the eight programs behind which PyTorch computes operation by operation, for good."""
    function = fused_ops.fused_by_width(fused_ops.gated.__wrapped__)
    for thread, widths in enumerate((range(16, 26, 2), range(26, 36, 2))):
        with ThreadPoolExecutor(1) as pool:
            for width in widths:
                pool.submit(function, gates(3, width), "silu").result()
        assert compiled.frame_count == 5 * (thread + 1)


def test_a_loss_that_is_compiled_as_a_whole_may_call_what_is_compiled(compiled: CompileCounter) -> None:
    function = fused_ops.fused_by_width(fused_ops.gated.__wrapped__)
    loss = torch.compile(lambda x: function(x, "silu").sum(), fullgraph=True)
    x = gates(4, 16)
    assert torch.equal(loss(x), fused_ops.gated.__wrapped__(x, "silu").sum())
    assert compiled.frame_count == 1


def test_compiled_logprobs_have_their_gradient_without_an_array_for_the_own_logits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of `gather` it would be zeros in float32, written to and read again: twice what the logits of a chunk take."""
    operations: set[str] = set()

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        operations.update(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph)

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=aot_autograd(fw_compiler=keep)))
    monkeypatch.setattr(fused_ops, "_compiles_on", lambda first: True)
    torch.compiler.reset()
    plain = fused_ops.logprobs_of.__wrapped__
    logits = gates(5, 40).requires_grad_()
    ids, weights = torch.tensor([0, 39, 7, 7, 20]), torch.arange(1.0, 6.0)
    found, expected = (each(logits, ids) for each in (fused_ops.fused_by_width(plain), plain))
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad((each * weights).sum(), logits) for each in (found, expected))
    torch.testing.assert_close(*gradients)
    assert "aten.exp.default" in operations
    assert not any("gather" in each or "scatter" in each for each in operations)


@pytest.mark.parametrize("id_", [-1, 8])
def test_an_id_that_has_no_row_gives_no_number(id_: int, compiled: CompileCounter) -> None:
    function = fused_ops.fused_by_width(fused_ops.logprobs_of.__wrapped__)
    logprobs = function(gates(2, 8), torch.tensor([3, id_]))
    assert logprobs.isnan().tolist() == [False, True]
