"""Sequences of several lengths for a model of a family."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from helpers.model_families import random_causal_lm

from distillkit.arrays import token_ids
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"attention_bias": True, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "llama, yarn": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 32,
        }
    },
    "llama, biases": {"mlp_bias": True},
    "llama, a window left over": {"sliding_window": 5},
    "mistral": {"sliding_window": 5},
    "qwen2": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0, "attention_bias": True},
    "gemma2": {
        "attn_logit_softcapping": 0.5, "final_logit_softcapping": 1.0, "query_pre_attn_scalar": 2, "sliding_window": 5,
    },
    "gemma3_text": {"sliding_window": 5, "query_pre_attn_scalar": 2},
    "gpt_oss": {"sliding_window": 5},
    "granite": {
        "attention_multiplier": 0.7, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "logits_scaling": 3.0,
    },
    "cohere2": {"logit_scale": 0.25, "sliding_window": 5},
    "phi3": {"partial_rotary_factor": 0.5, "sliding_window": 5},
    "stablelm": {"use_qkv_bias": True, "partial_rotary_factor": 0.5},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "qwen3_moe": {"norm_topk_prob": True},
    "mixtral": {"sliding_window": 5},
}  # fmt: skip
"""What a path could overlook: each value changes what the model computes."""


def family(name: str) -> CausalLM:
    return random_causal_lm(name.partition(",")[0], **FAMILIES[name])


def items() -> list[PromptAndResponse]:
    """Of different lengths, beyond every window; three begin alike, far enough to be computed once."""
    numbers = np.random.default_rng(0)
    start = numbers.integers(5, 250, 20)
    prompts = [np.concatenate([start, numbers.integers(5, 250, n)]) for n in (1, 4, 9)]
    return [
        PromptAndResponse(token_ids(p), token_ids(numbers.integers(5, 250, r)))
        for p, r in zip(prompts, (9, 3, 6), strict=True)
    ]
