"""A LoRA's layers: what PEFT's own forward computes, in fewer operations and fewer copies."""

from collections.abc import Iterator

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from distillkit_builtin.local.quantization import holds_numbers

ADAPTER = "default"
"""PEFT's name for the adapter."""


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Every linear layer with a plain LoRA, `W x + s B A x`, by name; its weight can take up the adapter.

    Quantized layers, experts, embeddings, and adapters that compute something else are none of them.
    """
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear) and _is_plain(module):
            yield name, module


def is_on_linear(layer: object) -> bool:
    """Whether a layer is a plain LoRA on a linear layer, however that keeps its weight: also in few bits."""
    if not isinstance(layer, LoraLayer) or list(layer.lora_A) != [ADAPTER]:
        return False
    return isinstance(layer.get_base_layer(), nn.Linear | Conv1D) and not (
        layer.lora_variant or layer.lora_bias[ADAPTER]
    )


def _is_plain(layer: LoraLinear) -> bool:
    base = layer.get_base_layer()
    return type(base) in (nn.Linear, Conv1D) and holds_numbers(base.get_parameter("weight")) and is_on_linear(layer)


class AdaptedLinear(LoraLinear):
    """`W x + s B A x` in three products, the last of which adds.

    PEFT casts each layer's input to the adapter's dtype and back, and scales and adds in passes of their own: in 210
    layers of a 135 M model a good part of a step on a CPU, and of what torch.compile has to read.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output [..., outputs] for `x` [..., inputs]; without the adapter where it is off."""
        base: Tensor = self.get_base_layer()(x)
        if self.disable_adapters:
            return base
        down = self.lora_A[ADAPTER].get_parameter("weight")
        up = self.lora_B[ADAPTER].get_parameter("weight") * self.scaling[ADAPTER]
        inner = functional.linear(self.lora_dropout[ADAPTER](x).to(base.dtype), down.to(base.dtype))
        return torch.addmm(base.flatten(0, -2), inner.flatten(0, -2), up.to(base.dtype).t()).view_as(base)


def use_adapted_linear(model: nn.Module) -> None:
    """Let every plain LoRA compute as `AdaptedLinear`.

    The class is changed, and not a method of each object: torch.compile would compile every layer by itself.
    """
    for _, layer in lora_layers(model):
        layer.__class__ = AdaptedLinear
