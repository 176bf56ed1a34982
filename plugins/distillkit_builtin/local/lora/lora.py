"""A LoRA's layers: what PEFT's own forward computes, in fewer operations and fewer copies."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from distillkit_builtin.local.lora.decoder_layers import is_linear
from distillkit_builtin.local.model_files.quantization import holds_numbers

ADAPTER = "default"
"""PEFT's name for the adapter."""


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """Every linear layer with a plain LoRA, `W x + s B A x`, by name; its weight can take up the adapter.

    Quantized layers, experts, embeddings, and adapters that compute something else are none of them.
    """
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear) and _is_plain(module):
            yield name, module


@dataclass(frozen=True, slots=True)
class AddedWeight:
    """A weight to which an adapter can be added."""

    layer: str
    """The name of the adapter's outermost layer, which stands in the place of the weight's own."""
    parameter: str
    """The weight's name in its own layer."""
    adapter: LoraLinear | ParamWrapper

    def base(self) -> Tensor:
        """The weight without the adapter."""
        return self.adapter.get_base_layer().get_parameter(self.parameter)

    def merged(self) -> Tensor:
        """The weight with what the adapter adds to it, `W + scaling * B A`, in float32."""
        adapter, base = self.adapter, self.base().float()
        if isinstance(adapter, ParamWrapper):
            added: Tensor = adapter.get_delta_weight(ADAPTER)
            return base + added.float()
        down, up = (each[ADAPTER].get_parameter("weight").float() for each in (adapter.lora_A, adapter.lora_B))
        first, second = (down.t(), up.t()) if adapter.fan_in_fan_out else (up, down)
        return torch.addmm(base, first, second, alpha=adapter.scaling[ADAPTER])


def added_weights(model: nn.Module) -> Iterator[AddedWeight]:
    """Every weight to which an adapter can be added: of linear layers, and of experts.

    Of a layer all of whose adapters can be added; one in few bits has none.
    """
    for name, layer in lora_layers(model):
        yield AddedWeight(name, "weight", layer)
    for name, wrappers in expert_wrappers(model):
        weights = [AddedWeight(name, wrapper.parameter_name, wrapper) for wrapper in wrappers]
        if all(list(each.adapter.lora_A) == [ADAPTER] and holds_numbers(each.base()) for each in weights):
            yield from weights


def expert_wrappers(model: nn.Module) -> Iterator[tuple[str, list[ParamWrapper]]]:
    """Adapters that PEFT puts on tensors of a layer, one around the other, by the outermost one's name."""
    inner: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper) and id(module) not in inner:
            wrappers = [module]
            while isinstance(wrappers[-1].base_layer, ParamWrapper):
                wrappers.append(wrappers[-1].base_layer)
            inner.update(map(id, wrappers))
            yield name, wrappers


def adapted_tensors(model: nn.Module) -> dict[str, str]:
    """Names, in the model without adapters, of the weights that a LoRA is on, with the names of its own layers."""
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            parameter = layer.parameter_name if isinstance(layer, ParamWrapper) else "weight"
            found[f"{name.replace('.base_layer', '')}.{parameter}"] = name
    return found


def is_on_linear(layer: object) -> bool:
    """Whether a layer is a plain LoRA on a linear layer, however that keeps its weight: also in few bits."""
    if not isinstance(layer, LoraLayer) or isinstance(layer, ParamWrapper) or list(layer.lora_A) != [ADAPTER]:
        return False
    return is_linear(layer.get_base_layer()) and not (layer.lora_variant or layer.lora_bias[ADAPTER])


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
