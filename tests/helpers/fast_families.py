"""One small model of each family that the fast path computes, with every part that is its family's own."""

from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    GraniteMoeConfig,
    LlamaConfig,
    MinistralConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoeConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import auto_class
from helpers.model_families import SIZES
from helpers.tiny_wrappers import wrapper_config

HEADS: dict[str, Any] = {**SIZES, "num_hidden_layers": 3}
NO_HEAD_DIM = {name: value for name, value in HEADS.items() if name != "head_dim"}
MIXED: dict[str, Any] = {
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "sliding_window": 12,  # fewer tokens than the prompts of the tests have
}
MULTIPLIED = {
    "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.4, "logits_scaling": 3.0,
}  # fmt: skip
ROUTED: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2}
TWO_BASES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
}
GEMMA3 = Gemma3TextConfig(**HEADS, **MIXED, query_pre_attn_scalar=5, rope_parameters=TWO_BASES)
TOWER = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
FAST_FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**HEADS),
    "mistral": MistralConfig(**HEADS, sliding_window=12),
    "ministral": MinistralConfig(**HEADS, **MIXED),
    "qwen2": Qwen2Config(**NO_HEAD_DIM),
    "qwen3": Qwen3Config(**HEADS),
    "phi3": Phi3Config(**NO_HEAD_DIM, sliding_window=12),
    "olmo2": Olmo2Config(**NO_HEAD_DIM),
    "olmo3": Olmo3Config(**NO_HEAD_DIM, **MIXED),
    "granite": GraniteConfig(**NO_HEAD_DIM, **MULTIPLIED),
    "gemma": GemmaConfig(**HEADS),
    "gemma2": Gemma2Config(**HEADS, **MIXED, attn_logit_softcapping=None, final_logit_softcapping=5.0),
    "gemma3_text": GEMMA3,
    "mixtral": MixtralConfig(**HEADS, num_experts_per_tok=2, num_local_experts=4),
    "qwen2_moe": Qwen2MoeConfig(**NO_HEAD_DIM, **ROUTED, moe_intermediate_size=16, shared_expert_intermediate_size=24),
    "qwen3_moe": Qwen3MoeConfig(**HEADS, **ROUTED, moe_intermediate_size=16, mlp_only_layers=[1], norm_topk_prob=True),
    "olmoe": OlmoeConfig(**NO_HEAD_DIM, **ROUTED),
    "granitemoe": GraniteMoeConfig(**NO_HEAD_DIM, **MULTIPLIED, num_experts_per_tok=2, num_local_experts=4),
}
"""By `model_type`, as `supported_models.FAMILIES` has them."""
WRAPPERS: dict[str, PreTrainedConfig] = {
    "gemma3": Gemma3Config(
        text_config=GEMMA3, vision_config=TOWER, mm_tokens_per_image=4, image_token_index=250, boi_token_index=251,
        eoi_token_index=252,
    ),
    "mistral3": wrapper_config("mistral3"),
}  # fmt: skip
"""Models with towers for pictures, whose text decoder is one of these."""


def fast_family(name: str, dtype: torch.dtype = torch.float32, **over: Any) -> CausalLM:
    """As the backend holds it, on the CPU; no norm is the identity, and distributions are far from uniform."""
    known = {**FAST_FAMILIES, **WRAPPERS}[name]
    config = type(known)(**{**known.to_dict(), **over})
    torch.manual_seed(0)
    model = auto_class(config).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            other = torch.randn_like(parameter) * 0.2
            parameter.copy_(other if parameter.dim() > 1 else parameter + other)
    model.eval().requires_grad_(False).to(dtype)
    return CausalLM(model, Device(torch.device("cpu")), dtype)
