"""bitsandbytes' 4-bit layers on the CPU: what they compute, with a gradient.

On CPUs with AVX512-BF16 bitsandbytes (0.50) repacks a layer's weight at its first call without gradient, and computes
it by a kernel in bfloat16 that autograd knows nothing of: the gradient would end at every such layer, with no more than
a warning. Here the layer's value stays bitsandbytes' own, so that what trains and what samples are one function.
"""

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from torch import Tensor, nn


class DifferentiableLinear4bit(Linear4bit):
    """A 4-bit layer whose gradient by its input is that of the weight with which it computes."""

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output [..., outputs] for `x` [..., inputs]."""
        result: Tensor = _Differentiable.apply(x, self)  # type: ignore[no-untyped-call]
        return result

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Give the weight as it is kept: bitsandbytes unpacks it for this, in place, into other numbers (0.50)."""
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Linear4bit) -> Tensor:  # noqa: ANN401 - torch's context
        ctx.layer = layer
        result: Tensor = Linear4bit.forward(layer, x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's context
        layer = ctx.layer
        # Of no packed weight can the numbers be read but by the layer itself: one row of them for each input.
        rows = Linear4bit.forward(layer, torch.eye(layer.in_features, dtype=gradient.dtype, device=gradient.device))
        weight = rows if layer.bias is None else rows - layer.bias.to(rows.dtype)
        return gradient @ weight.t(), None


def make_differentiable(model: nn.Module) -> None:
    """Let every 4-bit layer on the CPU have a gradient. The class is changed: its weight stays where it is."""
    for module in model.modules():
        if type(module) is Linear4bit and module.weight.device.type == "cpu":
            module.__class__ = DifferentiableLinear4bit
