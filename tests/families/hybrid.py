"""Families with recurrent or convolutional layers, or whose layers keep a state of their own."""

from families.family import Family

DELTA = ["linear_attention"] * 3 + ["full_attention"]
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}
KDA = {"linear_head_dim": 16, "linear_num_heads": 4}
INKLING = {
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "d_rel": 4,
    "rel_extent": 64,
    "unpadded_vocab_size": 259,
    "layer_types": ["hybrid_sliding"] * 3 + ["hybrid"],
    "n_layers_per_attn_res_block": 2,
}

BYTES = {"vocab_size": 260, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
BYTES |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512}

HYBRID: tuple[Family, ...] = tuple(
    Family(model_type, values, kind="hybrid")
    for model_type, values in {
        "qwen3_next": {"layer_types": DELTA},
        "qwen3_5_text": {"layer_types": DELTA},
        "qwen3_5_moe_text": {"layer_types": DELTA},
        "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
        "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_dense_layers": 1},
        "lfm3": {},
        "falcon_h1": {
            **MAMBA2,
            "mamba_d_ssm": 128,
            "lm_head_multiplier": 0.5,
            "embedding_multiplier": 2.0,
            "key_multiplier": 0.5,
            "attention_out_multiplier": 0.75,
            "attention_in_multiplier": 1.5,
            "ssm_in_multiplier": 1.25,
            "ssm_out_multiplier": 0.75,
            "mlp_multipliers": [0.8, 1.2],
            "ssm_multipliers": [0.9, 1.1, 0.8, 1.2, 0.7],
        },
        "mamba": {"state_size": 8},
        "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2, "chunk_size": 16},
        "falcon_mamba": {"state_size": 8},
        "nemotron_h": {
            "sliding_window": None,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "ssm_state_size": 16,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "n_groups": 2,
            "chunk_size": 16,
            "moe_shared_expert_intermediate_size": 48,
        },
        "granitemoehybrid": {
            **MAMBA2,
            "layer_types": ["mamba", "mamba", "attention", "mamba"],
            "shared_intermediate_size": 48,
            "embedding_multiplier": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.125,
            "logits_scaling": 3.0,
        },
        "bamba": {**MAMBA2, "attn_layer_indices": [2]},
        "olmo_hybrid": {"layer_types": DELTA},
        "kimi_linear": {**KDA, "num_key_value_heads": 4, "q_lora_rank": None, "layer_types": DELTA},
        "bailing_hybrid": {"num_key_value_heads": 4, "q_lora_rank": None, "layer_group_size": 4, "num_mtp_layers": 0},
        "jamba": {"attn_layer_period": 4, "attn_layer_offset": 2, "use_mamba_kernels": False, "mamba_d_state": 8},
        "minimax": {"sliding_window": None, "block_size": 16},
        "deepseek_v4": {
            "num_key_value_heads": 1,
            "o_groups": 2,
            "o_lora_rank": 16,
            "hc_mult": 2,
            "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
        },
        "zaya": {"sliding_window": None, "num_experts_per_tok": 1, "router_hidden_size": 16},
        "recurrent_gemma": {"lru_width": 64, "attention_window_size": 12},
        "rwkv": {"attention_hidden_size": 64},
        "xlstm": {"hidden_size": 128, "num_heads": 4, "chunk_size": 16},
        "inkling_text": INKLING,
        "inkling2_text": {**INKLING, "log_scaling_n_floor": 32},
        "inkling2_loop_text": {
            **INKLING,
            "log_scaling_n_floor": 32,
            "num_hidden_layers": 6,
            "layer_types": ["hybrid_sliding"] * 5 + ["hybrid"],
            "loop_layer_index_start": 2,
            "loop_layer_index_end": 4,
            "loop_gate_rank": 8,
        },
        "lara_mini": {"num_hidden_layers": 5},
        "qwen4_exp_text": {
            "hc_count": 2,
            "hc_lowrank": 8,
            "ple_layer_ids": [1],
            "ngram_vocab_size_base": 64,
            "heads_per_ngram": 2,
            "make_ngram_vocab_size_divisible_by": 8,
            "split_ngram_parts": 1,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 256,
            "indexer_compress_ratio": 4,
        },
        "zamba": {
            "num_hidden_layers": 6,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
            "mamba_d_state": 8,
        },
        "blt": {
            "vocab_size": 260,
            "encoder_hash_byte_group_size": [3, 4],
            "encoder_hash_byte_group_vocab": 64,
            "patcher_config": BYTES,
            "encoder_config": {**BYTES, "hidden_size_global": 64},
            "decoder_config": {**BYTES, "hidden_size_global": 64},
            "global_config": BYTES,
        },
        "zamba2": {
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "mamba_d_state": 16,
            "chunk_size": 16,
            "n_mamba_heads": 8,
            "adapter_rank": 8,
            "use_shared_attention_adapter": True,
            "num_key_value_heads": 4,
        },
    }.items()
)
