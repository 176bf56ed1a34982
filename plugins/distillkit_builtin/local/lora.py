"""A LoRA's layers as they compute here: what PEFT's forward computes, in fewer operations, and fewer copies."""

from collections.abc import Iterator
from functools import partial

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

NAME = "default"
"""PEFT's name for the adapter."""


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Every linear layer with an adapter, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def simplify(model: nn.Module) -> None:
    """Let every adapted layer compute `W x + s B A x` in three products, the last of which adds.

    PEFT casts each layer's input to the adapter's dtype and back, and scales and adds in passes of their own: in 210
    layers of a 135 M model a good part of a step on a CPU, and of what torch.compile has to read.
    """
    for _, layer in lora_layers(model):
        setattr(layer, "forward", partial(lora_forward, layer))  # noqa: B010 - a method of one object


def lora_forward(layer: LoraLinear, x: Tensor) -> Tensor:
    """The layer's output for `x` [..., inputs]; without the adapter where it is off."""
    base: Tensor = layer.get_base_layer()(x)
    if layer.disable_adapters:
        return base
    down = layer.lora_A[NAME].get_parameter("weight")
    up = layer.lora_B[NAME].get_parameter("weight") * layer.scaling[NAME]
    inner = functional.linear(layer.lora_dropout[NAME](x).to(base.dtype), down.to(base.dtype))
    return torch.addmm(base.flatten(0, -2), inner.flatten(0, -2), up.to(base.dtype).t()).view_as(base)
