"""Mixtures of experts."""

from families.family import Family

WINDOWS = ["sliding_attention"] * 3 + ["full_attention"]
DENSE_FIRST = ["dense", "sparse", "sparse", "sparse"]
SHARED = {"n_shared_experts": 1, "mlp_layer_types": DENSE_FIRST}
LATENT = {
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "routed_scaling_factor": 2.5,
    "n_routed_experts": 8,
    "n_group": 4,
    "topk_group": 2,
}
"""Of DeepSeek: as many keys and values as heads, all out of one latent vector."""
MULTIPLIERS = {
    "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.125,
    "logits_scaling": 3.0,
}

COMMON: tuple[Family, ...] = tuple(
    Family(model_type, values, kind="experts")
    for model_type, values in {
        "mixtral": {"sliding_window": None},
        "qwen2_moe": {},
        "qwen3_moe": {"norm_topk_prob": True, "use_sliding_window": False},
        "olmoe": {},
        "flex_olmo": {},
        "granitemoe": MULTIPLIERS,
        "granitemoeshared": {**MULTIPLIERS, "shared_intermediate_size": 48},
        "granitemoe_swa": {**MULTIPLIERS, "shared_intermediate_size": 48, "layer_types": WINDOWS},
        "gpt_oss": {"layer_types": ["sliding_attention", "full_attention"] * 2},
        "glm4_moe": {"use_qk_norm": True},
        "glm4_moe_lite": {**LATENT, "n_group": 1, "topk_group": 1, "mlp_layer_types": DENSE_FIRST},
        "glm_moe_dsa": {**LATENT, "n_group": 1, "topk_group": 1, "mlp_layer_types": DENSE_FIRST},
        "deepseek_v2": {**LATENT, "n_shared_experts": 2, "topk_method": "group_limited_greedy"},
        "deepseek_v3": LATENT,
        "deepseek_v32": LATENT,
        "cohere2_moe": {"layer_types": WINDOWS, "num_shared_experts": 1, "logit_scale": 0.5},
        "exaone_moe": {"layer_types": WINDOWS, "mlp_layer_types": DENSE_FIRST},
        "ernie4_5_moe": {"moe_num_shared_experts": 1, "moe_layer_end_index": 3},
        "hunyuan_v1_moe": {},
        "minimax_m2": {"rotary_dim": 8},
        "minimax_m3_vl_text": {
            "layer_types": ["full_attention"] + ["minimax_m3_sparse"] * 3,
            "index_block_size": 128,  # longer than every test: up to there sequences are read
            "index_topk_blocks": 64,
            "dense_intermediate_size": 96,
            "shared_intermediate_size": 48,
            "rotary_dim": 8,
            "mlp_layer_types": DENSE_FIRST,
        },
        "afmoe": {"layer_types": WINDOWS, "num_shared_experts": 1, "mup_enabled": True},
        "aria_text": {"moe_num_experts": 4},
        "beam": {"num_experts": 8, "n_group": 4, "topk_group": 2},
        "dbrx": {
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 500000.0},
            "ffn_config": {"hidden_size": 64, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
        },
        "dots1": {"n_shared_experts": 2, "layer_types": WINDOWS},
        "flint": {},
        "hy_v3": {"mlp_layer_types": DENSE_FIRST},
        "hy_v4": {},
        "jetmoe": {},
        "kolibri1": {"layer_types": WINDOWS},
        "mellum": {"layer_types": WINDOWS},
        "mimo_v2_flash": {"v_head_dim": 8, "layer_types": WINDOWS, "mlp_layer_types": DENSE_FIRST},
        "sarvam_moe": {},
        "sarvam_mla": {**LATENT, "n_group": 1, "topk_group": 1, "q_lora_rank": None},
        "solar_open": {},
        "laguna": {
            "num_attention_heads_per_layer": [8, 8, 8, 4],
            "layer_types": WINDOWS,
            "mlp_layer_types": DENSE_FIRST,
        },
        "phimoe": {"attention_bias": True, "lm_head_bias": True},
        "llama4_text": {
            "intermediate_size_mlp": 96,
            "attention_chunk_size": 16,
            "floor_scale": 16,
            "num_experts_per_tok": 1,
        },
        "axk1": {**LATENT, "mlp_layer_types": DENSE_FIRST},
        "axk2": {**LATENT, "mlp_layer_types": DENSE_FIRST},
        "longcat_flash": {
            "head_dim": 8,
            "num_layers": 2,
            "num_key_value_heads": 4,
            "expert_ffn_hidden_size": 48,
            "zero_expert_num": 2,
        },
        "dots3_note_text": {
            **LATENT,
            "n_group": 1,
            "topk_group": 1,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 4,
            "swa_q_lora_rank": 24,
            "swa_kv_lora_rank": 16,
            "swa_head_dim": 24,
            "swa_qk_nope_head_dim": 16,
            "swa_v_head_dim": 16,
            "layer_types": ["indexed_attention", "sliding_attention", "sliding_attention", "indexed_attention"],
            "shared_experts_intermediate_size": 48,
            "mlp_layer_types": DENSE_FIRST,
        },
    }.items()
)
GEMMA4 = {
    "layer_types": WINDOWS,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 259,
    "final_logit_softcapping": 30.0,
    "global_head_dim": 32,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "enable_moe_block": True,
    "num_experts": 4,
    "top_k_experts": 2,
    "moe_intermediate_size": 48,
}
EXPERTS = (
    *COMMON,
    Family("gemma4_text", GEMMA4, kind="experts", variant="experts"),
    Family("mistral4", LATENT, architecture="Mistral4ForCausalLM", kind="experts"),
)
