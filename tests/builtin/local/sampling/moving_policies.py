"""Policies of every kind of adapter that do something, and are moved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.model_families import random_causal_lm, write_quantized
from peft import LoraConfig, get_peft_model

from distillkit.arrays import token_ids
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.lora.lora import use_adapted_linear
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.policy import Policy

QUANTIZED: Mapping[str, Mapping[str, Any]] = {
    "llama 4 bit": {"load_in_4bit": True},
    "llama 8 bit": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "glm4_moe 4 bit": {"kind": "glm4_moe", "load_in_4bit": True},
}
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "a layer trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "weight decomposition": {"target_modules": "all-linear", "use_dora": True},
    "rank stabilized": {"target_modules": "all-linear", "use_rslora": True},
    "biases of its own": {"target_modules": "all-linear", "lora_bias": True},
    "the head that shares the embeddings": {"target_modules": ["lm_head", "q_proj"]},
    "a block that two layers share": {"target_modules": "all-linear"},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6, 7]},
}
TIED = ("llama, all weights", "the head that shares the embeddings")


def student(kind: str, folder: Path) -> Policy:
    """A policy whose adapter does something, by the names of the tests' parameters."""
    device = Device(torch.device("cpu"))
    if kind in QUANTIZED:
        causal_lm = CausalLM.load(write_quantized(folder, **QUANTIZED[kind]), device, torch.float32, torch.float32)
    else:
        family = "llama" if kind in ADAPTERS else kind.removesuffix(", all weights")
        causal_lm = random_causal_lm(family, tie_word_embeddings=kind in TIED)
    if kind == "a block that two layers share":  # as Zamba's: modules of their own with weights in common
        first, second = (layer.self_attn for layer in causal_lm.model.model.layers)
        for name in ("q_proj", "v_proj"):
            setattr(getattr(second, name), "weight", getattr(first, name).weight)  # noqa: B010
    if kind.endswith("all weights"):
        return Policy.full(causal_lm)
    if kind not in ADAPTERS:
        policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    else:
        causal_lm.adapter = get_peft_model(causal_lm.model, LoraConfig(r=4, task_type="CAUSAL_LM", **ADAPTERS[kind]))
        use_adapted_linear(causal_lm.model)
        trained = {name: p for name, p in causal_lm.adapter.named_parameters() if p.requires_grad}
        policy = Policy(causal_lm, trained)
    move(policy, 0)
    return policy


@torch.no_grad()
def move(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trained.values():
        parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))


@torch.no_grad()
def logprobs(causal_lm: CausalLM) -> torch.Tensor:
    numbers = np.random.default_rng(0)
    ids = [token_ids(numbers.integers(5, 250, n)) for n in (5, 9, 7, 4)]
    return causal_lm.response_logprobs([PromptAndResponse(ids[0], ids[1]), PromptAndResponse(ids[2], ids[3])])
