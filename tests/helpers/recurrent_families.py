"""What makes a tiny model of each recurrent or hybrid family: both kinds of layers, states of several heads."""

from collections.abc import Mapping
from typing import Any

from helpers.model_families import EXPERTS

DELTA: dict[str, Any] = {
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
DELTA_EXPERTS: dict[str, Any] = {
    **DELTA, **EXPERTS, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
}  # fmt: skip
MAMBA: dict[str, Any] = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_expand": 2,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "kv_lora_rank": 16, "q_lora_rank": None, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 4,
}  # fmt: skip
LINEAR, CONV = {"layer_types": ["linear_attention", "full_attention"]}, {"layer_types": ["conv", "full_attention"]}

RECURRENT: Mapping[str, Mapping[str, Any]] = {
    "qwen3_next": {**DELTA_EXPERTS, **LINEAR},
    "qwen3_5_text": {**DELTA, **LINEAR},
    "qwen3_5_moe_text": {**DELTA_EXPERTS, **LINEAR},
    "lfm2": {**CONV, "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {**CONV, **EXPERTS, "moe_intermediate_size": 16, "num_dense_layers": 1},
    "lfm3": {**CONV, "sliding_window": 5},
    "falcon_h1": {**MAMBA, "mamba_d_ssm": 64, "lm_head_multiplier": 0.3},
    "mamba": {"state_size": 8, "time_step_rank": 4},
    "falcon_mamba": {"state_size": 8, "time_step_rank": 4},
    "mamba2": {"state_size": 8, "num_heads": 8, "n_groups": 2, "chunk_size": 8},
    "granitemoehybrid": {
        **MAMBA, **EXPERTS, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 16,
        "logits_scaling": 3.0,
    },
    "bamba": {**MAMBA, "attn_layer_indices": [1]},
    "nemotron_h": {
        "layers_block_type": ["mamba", "attention", "mlp", "moe"], "ssm_state_size": 8, "mamba_num_heads": 4,
        "mamba_head_dim": 16, "n_groups": 2, "chunk_size": 8, "n_routed_experts": 4, "moe_intermediate_size": 16,
        "moe_shared_expert_intermediate_size": 16, "num_hidden_layers": 4,
    },
    "olmo_hybrid": {**DELTA, **LINEAR},
    "kimi_linear": {
        **LATENT, **EXPERTS, **LINEAR, "linear_head_dim": 8, "linear_num_heads": 4, "moe_intermediate_size": 16,
        "mlp_layer_types": ["dense", "sparse"],
    },
    "bailing_hybrid": {
        **LATENT, **EXPERTS, **LINEAR, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "mlp_layer_types": ["dense", "sparse"],
    },
    "jamba": {
        **EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8, "mamba_dt_rank": 4,
    },
    "minimax": {**EXPERTS, **LINEAR, "block_size": 8},
    "zaya": {"num_experts": 4, "num_experts_per_tok": 1, "moe_intermediate_size": 16, "router_hidden_size": 16},
    "deepseek_v4": {
        "num_hidden_layers": 3, "num_key_value_heads": 1, "q_lora_rank": 16, "o_lora_rank": 16, "o_groups": 2,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "sliding_window": 8,
        "index_n_heads": 2, "index_head_dim": 8, "index_topk": 64, "num_nextn_predict_layers": 0,
        "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        "mlp_layer_types": ["moe", "moe", "moe"],
    },
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"], "mamba_d_state": 8, "n_mamba_heads": 4, "chunk_size": 8,
        "num_key_value_heads": 4, "adapter_rank": 4,
    },
    "inkling_text": {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "sliding_window_size": 8,
        "d_rel": 4, "rel_extent": 64, "layer_types": ["hybrid_sliding", "hybrid"],
        "mlp_layer_types": ["dense", "sparse"], "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "n_shared_experts": 1, "logits_mup_width_multiplier": 2.0,
    },
    "lara_mini": {**DELTA_EXPERTS, "layer_types": ["linear_attention", "sliding_attention"], "sliding_window": 8},
}  # fmt: skip
"""By `model_type`."""
