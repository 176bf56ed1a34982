"""Small models with random weights of any family that transformers has, made in memory."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from helpers.tiny_models import write_tokenizer

VOCABULARY = 259
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "eos_token_id": 2, "pad_token_id": 2, "bos_token_id": 1,
}  # fmt: skip
OTHER_NAMES: dict[str, dict[str, Any]] = {
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
}
"""Of families that call these sizes by names of their own."""
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "num_local_experts": 4}
_MIXTURE = {**EXPERTS, "n_routed_experts": 4, "moe_intermediate_size": 16}
_SHARED = {"first_k_dense_replace": 1, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}
_LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4, "head_dim": 4,
}  # fmt: skip
_VISION = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14, "model_type": "siglip_vision_model",
}  # fmt: skip
LAYERED: dict[str, dict[str, Any]] = {
    "qwen3_moe": {**_MIXTURE, "mlp_only_layers": [0]},
    "mixtral": _MIXTURE,
    "qwen2_moe": {**_MIXTURE, "shared_expert_intermediate_size": 24},
    "deepseek_v3": {**_MIXTURE, **_SHARED, **_LATENT},
    "glm4_moe": {**_MIXTURE, **_SHARED},
    "gpt_oss": _MIXTURE,
    "phimoe": _MIXTURE,
    "laguna": {**_MIXTURE, "shared_expert_intermediate_size": 24},
    "jetmoe": {**_MIXTURE, "kv_channels": 8},
    "dbrx": {
        "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 256,
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
    },
    "gemma3": {
        "text_config": {**SIZES, "sliding_window": 16, "query_pre_attn_scalar": 8},
        "vision_config": _VISION, "mm_tokens_per_image": 4, "image_token_index": 200, "boi_token_index": 201,
        "eoi_token_index": 202,
    },
}  # fmt: skip
"""Sizes of families in which layers of several kinds stand: dense ones, shared and other experts, routers, towers."""


def random_model(kind: str, *, seed: int = 0, **over: Any) -> PreTrainedModel:
    """A frozen model of the `model_type`; its distributions are far from uniform."""
    values = {**SIZES, **OTHER_NAMES.get(kind, {}), **(EXPERTS if "moe" in kind or kind == "mixtral" else {}), **over}
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values))
    spread(model)
    model.eval().requires_grad_(False)
    return model


@torch.no_grad()
def spread(model: PreTrainedModel) -> None:
    """Draw weights and biases so that distributions are far from uniform; norms stay as they are."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 or name.endswith("bias"):
            parameter.normal_(0.0, 0.2)


def random_causal_lm(kind: str, **over: Any) -> CausalLM:
    """As the backend holds it, proved, in float32 on the CPU."""
    causal_lm = CausalLM(random_model(kind, **over), Device(torch.device("cpu")), torch.float32)
    causal_lm.require_known_head()
    return proved(causal_lm)


def write_quantized(folder: Path, kind: str = "llama", **options: Any) -> str:
    """A model whose files are quantized by bitsandbytes, with these options of its config; returns the directory."""
    sizes = {"hidden_size": 64, "head_dim": 16, "intermediate_size": 128, "moe_intermediate_size": 64}
    random_model(kind, **{**LAYERED.get(kind, {}), **sizes}).save_pretrained(folder / "whole")
    config = BitsAndBytesConfig(**options, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        folder / "whole", quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
    )
    model.save_pretrained(folder / "quantized")
    write_tokenizer(folder / "quantized")
    return str(folder / "quantized")
