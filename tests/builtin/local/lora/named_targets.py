"""Layers of model families, by the names that a LoRA is put on."""

from typing import Any

import torch
from transformers import PreTrainedModel

from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


def names(layer: str, parts: tuple[str, ...]) -> set[str]:
    return {f"{layer}.{part}" for part in parts}


def attention(decoder: str, parts: tuple[str, ...] = ATTENTION) -> set[str]:
    return {name for i in (0, 1) for name in names(f"{decoder}.layers.{i}.self_attn", parts)}


def causal_lm_of(model: PreTrainedModel) -> CausalLM:
    return CausalLM(model, Device(torch.device("cpu")), torch.float32)


def moved_policy(model: PreTrainedModel, **options: Any) -> Policy:
    """With a LoRA of rank 4 that does something."""
    policy = Policy.lora(causal_lm_of(model), 4, 8, options.pop("dropout", 0.0), 0, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.1, generator=generator))
    return policy
