"""Models that also read images or sound: those with a language model of their own, and all of them together."""

from collections.abc import Mapping
from typing import Any

from families.around_families import AROUND_FAMILIES, DEEP, PIXTRAL, SIGLIP
from families.dense import MULTIPLIERS, WINDOWS
from families.experts import DENSE_FIRST
from families.family import Family

SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}
"""Rotary angles of time, height and width, of 8 in all: the same for a text."""
SHORT = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}
DEEPSEEK_OCR2: Mapping[str, Any] = {
    "text_config": {"mlp_layer_types": DENSE_FIRST, "n_shared_experts": 2, "num_key_value_heads": 4},
    "vision_config": {
        "sam_config": {
            "output_channels": 16,
            "downsample_channels": [16, 32],
            "global_attn_indexes": [0],
            "window_size": 2,
        },
        "encoder_config": {},
    },
}
WRAPPERS: tuple[Family, ...] = (
    *AROUND_FAMILIES,
    *(
        Family(model_type, values, kind="wrapper")
        for model_type, values in {
            "mistral_large4": {
                "text_config": {"num_key_value_heads": 4, "n_shared_experts": 1},
                "vision_config": PIXTRAL,
            },
            "qwen2_vl": {"text_config": SECTIONS, "vision_config": {"hidden_size": 64}},
            "qwen2_5_vl": {"text_config": SECTIONS, "vision_config": {"fullatt_block_indexes": [0]}},
            "qwen3_vl": {"text_config": SECTIONS, "vision_config": DEEP},
            "qwen3_vl_moe": {"text_config": SECTIONS, "vision_config": DEEP},
            "glm4v": {"text_config": SECTIONS, "vision_config": {}},
            "glm4v_moe": {"text_config": {"rope_parameters": SHORT}, "vision_config": {}},
            "glm46v": {
                "text_config": {"model_type": "glm4v_text", **SECTIONS},
                "vision_config": {"model_type": "glm4v_vision"},
            },
            "glm5_next": {
                "text_config": {
                    "num_key_value_heads": 4,
                    "qk_rope_head_dim": 0,
                    "head_dim": 0,
                    "linear_head_dim": 16,
                    "linear_num_heads": 4,
                    "hc_mult": 2,
                    "index_kpool": 4,
                },
                "vision_config": {"projection_intermediate_size": 48},
            },
            "glm_ocr": {"text_config": {"rope_parameters": SHORT}, "vision_config": {}},
            "glmga": {
                "text_config": {"model_type": "glm4v_text", **SECTIONS},
                "vision_config": {"model_type": "glm4v_vision"},
            },
            "granite4_vision": {
                "text_config": {**MULTIPLIERS, "logits_scaling": 3.0},
                "vision_config": {**SIGLIP, "hidden_size": 64},
                "qformer_config": {"model_type": "blip_2_qformer"},
                "deepstack_layer_map": [[0, 0]],
                "spatial_target_layers": [2],
                "downsample_rate": "1/2",
            },
            "granite_docling": {"text_config": {**MULTIPLIERS, "logits_scaling": 1.5}, "vision_config": {}},
            "ernie4_5_vl_moe": {
                "text_config": {
                    "moe_intermediate_size": [48, 24],
                    "moe_num_shared_experts": 1,
                    "mlp_layer_types": DENSE_FIRST,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]},
                },
                "vision_config": {},
            },
            "phi4_multimodal": {
                "sliding_window": None,
                "original_max_position_embeddings": 512,
                "vision_config": {},
                "audio_config": {
                    "ext_pw_out_channel": 32,
                    "depthwise_separable_out_channel": 32,
                    "nemo_conv_channels": 32,
                    "num_blocks": 1,
                },
            },
            "qwen2_5_omni_thinker": {
                "text_config": SECTIONS,
                "vision_config": {"fullatt_block_indexes": [0]},
                "audio_config": {"output_dim": 64},
            },
            "qwen3_omni_moe_thinker": {
                "text_config": {**SECTIONS, "sliding_window": None},  # as all of its checkpoints
                "vision_config": DEEP,
                "audio_config": {"downsample_hidden_size": 16, "output_dim": 64},
            },
            "muse_glimmer": {
                "text_config": {"layer_types": WINDOWS},
                "vision_config": {"pos_emb_height": 4, "pos_emb_width": 4, "max_position_embeddings": 16},
                "out_hidden_size": 128,
                "projector_hidden_size": 64,
            },
            "muse_spark": {
                "text_config": {"layer_types": WINDOWS, "moe_hidden_size": 48},
                "vision_config": {"pos_emb_height": 4, "pos_emb_width": 4, "max_position_embeddings": 16},
                "audio_config": {"num_hidden_layers": 4, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
                "out_hidden_size": 128,
                "projector_hidden_size": 64,
            },
            "step3p7": {
                "text_config": {"layer_types": ["full_attention"] + ["sliding_attention"] * 3, "share_expert_dim": 48},
                "vision_config": {},
            },
            "hunyuan_vl": {
                "text_config": {
                    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2, 2]}
                },
                "vision_config": {"text_hidden_size": 64},
            },
            "hy_v4_vl": {
                "text_config": {
                    "hc_mult": 2,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
                },
                "vision_config": {},
            },
            "deepseek_ocr2": DEEPSEEK_OCR2,
            "molmo2": {
                "text_config": {},
                "vision_config": {"image_size": [28, 28], "num_position_embeddings": 4},
                "adapter_config": {"vision_feature_layer": [0], "text_hidden_size": 64},
            },
            "paddleocr_vl": {"text_config": SECTIONS, "vision_config": {}},
            "unlimited_ocr": DEEPSEEK_OCR2,
            "mllama": {"text_config": {"cross_attention_layers": [1]}, "vision_config": {}},
            "chameleon": {
                "vq_config": {
                    "embed_dim": 16,
                    "num_embeddings": 16,
                    "latent_channels": 16,
                    "base_channels": 32,
                    "channel_multiplier": [1],
                    "num_res_blocks": 1,
                },
                "vocabulary_map": {"<image>": 300},
            },
            "emu3": {
                "text_config": {},
                "vq_config": {
                    "codebook_size": 16,
                    "base_channels": 32,
                    "channel_multiplier": [1],
                    "num_res_blocks": 1,
                    "hidden_size": 32,
                    "attn_resolutions": [],
                },
                "vocabulary_map": {"<image>": 300, "<|extra_200|>": 301},
            },
            "cosmos3_edge": {
                "text_config": SECTIONS,
                "vision_config": {"num_patches": 16},
                "projector_hidden_size": 64,
            },
            "cosmos3_omni": {
                "text_config": {"model_type": "qwen3_vl_text", **SECTIONS},
                "vision_config": {"model_type": "qwen3_vl_vision", **DEEP},
            },
        }.items()
    ),
)
