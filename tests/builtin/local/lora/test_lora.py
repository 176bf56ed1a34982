from collections.abc import Callable

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear

from distillkit_builtin.local.lora.lora import AdaptedLinear, lora_layers
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy


@pytest.fixture
def layers(load: Callable[..., CausalLM], tiny_model: str) -> list[LoraLinear]:
    """Adapted layers whose adapters do something."""
    policy = Policy.lora(load(tiny_model), 4, 8, 0.0, 0)
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.normal_(0, 0.1)
    return [layer for _, layer in lora_layers(policy.causal_lm.model)]


def test_outputs_and_gradients_are_those_of_peft(layers: list[LoraLinear]) -> None:
    for layer in layers:
        x = torch.randn(2, 5, layer.get_base_layer().in_features)
        results = []
        for forward in (LoraLinear.forward, AdaptedLinear.forward):
            layer.zero_grad()
            given = x.clone().requires_grad_()
            out = forward(layer, given)
            out.square().sum().backward()
            trained = [p.grad.clone() for p in layer.parameters() if p.grad is not None]
            results.append([out.detach(), given.grad, *trained])
        assert len(results[0]) == len(results[1]) == 4
        for theirs, ours in zip(*results, strict=True):
            assert torch.allclose(theirs, ours, rtol=1e-4, atol=1e-4)


def test_every_adapted_layer_computes_in_three_products(layers: list[LoraLinear]) -> None:
    assert {type(layer) for layer in layers} == {AdaptedLinear}


def test_dropout_applies_to_the_adapter_alone(load: Callable[..., CausalLM], tiny_model: str) -> None:
    policy = Policy.lora(load(tiny_model), 4, 8, 0.5, 0)
    _, layer = next(lora_layers(policy.causal_lm.model))
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.normal_(0, 0.1)
    x = torch.randn(3, layer.get_base_layer().in_features)
    with policy.training():
        torch.manual_seed(1)
        first = layer(x)
        torch.manual_seed(1)
        assert torch.equal(first, layer(x))
        assert not torch.allclose(first, layer(x))
    policy.causal_lm.adapter.eval()
    assert torch.allclose(layer(x), LoraLinear.forward(layer, x), atol=1e-5)


def test_the_adapter_can_be_off(layers: list[LoraLinear]) -> None:
    layer = layers[0]
    x = torch.randn(3, layer.get_base_layer().in_features)
    layer.enable_adapters(False)
    assert torch.equal(layer(x), layer.get_base_layer()(x))
    layer.enable_adapters(True)
    assert not torch.allclose(layer(x), layer.get_base_layer()(x))


def test_a_base_in_bfloat16_keeps_its_dtype(load: Callable[..., CausalLM], tiny_model: str) -> None:
    policy = Policy.lora(load(tiny_model, torch.bfloat16), 4, 8, 0.0, 0)
    _, layer = next(lora_layers(policy.causal_lm.model))
    x = torch.randn(3, layer.get_base_layer().in_features, dtype=torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
