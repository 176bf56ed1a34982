"""Models that also read images or sound, around a language model that is a family of its own."""

from typing import Any

from families.dense import DENSE
from families.experts import EXPERTS
from families.family import Family
from families.hybrid import HYBRID

TEXTS = {family.name: family for family in (*DENSE, *EXPERTS, *HYBRID)}


def text(model_type: str, **values: Any) -> dict[str, Any]:
    """The `text_config` of a family that exists by itself as well."""
    return {"model_type": model_type, **TEXTS[model_type].values, **values}


CLIP = {"model_type": "clip_vision_model"}
SIGLIP = {"model_type": "siglip_vision_model"}
PIXTRAL = {"model_type": "pixtral"}
DEEP = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
"""Of Qwen: what its layers see of an image goes into several layers of the language model."""

AROUND_FAMILIES: tuple[Family, ...] = (
    Family(
        "mistral3", {"text_config": text("ministral3"), "vision_config": PIXTRAL}, kind="wrapper", variant="ministral3"
    ),
    *(
        Family(model_type, values, kind="wrapper")
        for model_type, values in {
            "mistral3": {"text_config": text("mistral", sliding_window=None), "vision_config": PIXTRAL},
            "qwen3_5": {"text_config": text("qwen3_5_text"), "vision_config": {"num_position_embeddings": 16}},
            "qwen3_5_moe": {"text_config": text("qwen3_5_moe_text"), "vision_config": {"num_position_embeddings": 16}},
            "gemma3": {"text_config": text("gemma3_text"), "vision_config": SIGLIP},
            "gemma4": {"text_config": text("gemma4_text"), "vision_config": {"position_embedding_size": 16}},
            "gemma4_unified": {
                "text_config": text("gemma4_unified_text"),
                "vision_config": {"mm_embed_dim": 32, "mm_posemb_size": 16, "output_proj_dims": 32},
            },
            "llama4": {
                "text_config": text("llama4_text"),
                "vision_config": {
                    "vision_output_dim": 32,
                    "projector_input_dim": 32,
                    "projector_output_dim": 32,
                    "intermediate_size": 128,
                },
            },
            "internvl": {"text_config": text("qwen2"), "vision_config": {}},
            "smolvlm": {"text_config": text("llama"), "vision_config": {}},
            "idefics3": {"text_config": text("llama"), "vision_config": {}},
            "idefics2": {"text_config": text("mistral"), "vision_config": {}, "perceiver_config": {}},
            "llava": {"text_config": text("llama"), "vision_config": CLIP},
            "llava_next": {"text_config": text("mistral"), "vision_config": CLIP},
            "llava_next_video": {"text_config": text("llama"), "vision_config": CLIP},
            "llava_onevision": {"text_config": text("qwen2"), "vision_config": SIGLIP},
            "video_llava": {"text_config": text("llama"), "vision_config": CLIP},
            "vipllava": {"text_config": text("llama"), "vision_config": CLIP},
            "aya_vision": {"text_config": text("cohere2"), "vision_config": SIGLIP},
            "cohere2_vision": {
                "text_config": text("cohere2"),
                "vision_config": SIGLIP,
                "alignment_intermediate_size": 64,
            },
            "cohere_compass": {"text_config": text("cohere_compass_text"), "vision_config": DEEP},
            "kimi_k25": {"text_config": text("deepseek_v3"), "vision_config": {}},
            "lfm2_vl": {
                "text_config": text("lfm2"),
                "vision_config": {"model_type": "siglip2_vision_model"},
                "projector_hidden_size": 64,
            },
            "lfm3_vl": {"text_config": text("lfm3"), "vision_config": {}, "projector_hidden_size": 64},
            "voxtral": {"text_config": text("llama"), "audio_config": {"model_type": "voxtral_encoder"}},
            "qwen2_audio": {"text_config": text("qwen2"), "audio_config": {"model_type": "qwen2_audio_encoder"}},
            "paligemma": {"text_config": text("gemma"), "vision_config": SIGLIP},
            "minimax_m3_vl": {
                "text_config": text("minimax_m3_vl_text"),
                "vision_config": {},
                "projector_hidden_size": 64,
            },
            "deepseek_vl": {"text_config": text("llama"), "vision_config": SIGLIP},
            "deepseek_vl_hybrid": {
                "text_config": text("llama"),
                "vision_config": SIGLIP,
                "high_res_vision_config": {
                    "model_type": "sam_vision_model",
                    "output_channels": 16,
                    "global_attn_indexes": [0],
                    "window_size": 2,
                },
            },
            "aria": {"text_config": text("aria_text"), "vision_config": {"model_type": "idefics3_vision"}},
            "exaone4_5": {"text_config": text("exaone4"), "vision_config": {}},
            "hyperclovax_vision_v2": {
                "text_config": text("hyperclovax"),
                "vision_config": {"model_type": "qwen2_5_vl_vision", "fullatt_block_indexes": [0]},
            },
            "inkling2": {
                "text_config": text("inkling2_text"),
                "vision_config": {"text_hidden_size": 64, "projection_hidden_dim": 32},
            },
            "inkling2_loop": {
                "text_config": text("inkling2_loop_text"),
                "vision_config": {"model_type": "inkling2_vision", "text_hidden_size": 64, "projection_hidden_dim": 32},
            },
            "janus": {
                "text_config": text("llama"),
                "vision_config": {"projection_dim": 64},
                "vq_config": {
                    "num_embeddings": 16,
                    "latent_channels": 32,
                    "base_channels": 32,
                    "channel_multiplier": [1],
                    "num_res_blocks": 1,
                    "projection_dim": 64,
                    "image_token_embed_dim": 64,
                },
            },
            "lighton_ocr": {"text_config": text("qwen3"), "vision_config": PIXTRAL},
            "minicpm_ocr": {"text_config": text("qwen3_5_text"), "vision_config": {"insert_layer_id": 0}},
            "minicpmv4_6": {"text_config": text("qwen3_5_text"), "vision_config": {"insert_layer_id": 0}},
            "minicpmv4_7": {"text_config": text("qwen3_5_text"), "vision_config": {"insert_layer_id": 0}},
            "nemotron_h_omni": {
                "text_config": text("nemotron_h"),
                "vision_config": {"model_type": "radio", "video_temporal_patch_size": 2},
                "audio_config": {
                    "model_type": "parakeet_encoder",
                    "projection_hidden_size": 32,
                    "projection_bias": False,
                },
                "projector_hidden_size": 32,
                "vision_hidden_size": 32,
            },
            "ovis2": {"text_config": text("qwen2"), "vision_config": {"vocab_size": 32}, "hidden_size": 64},
            "qianfan_ocr": {"text_config": text("qwen3"), "vision_config": {}},
            "video_llama_3": {"text_config": text("qwen2"), "vision_config": {}},
            "qwen4_exp": {"text_config": text("qwen4_exp_text"), "vision_config": {"num_position_embeddings": 16}},
            "dots3_note": {
                "text_config": text("dots3_note_text"),
                "vision_config": {"per_layer_config": {}, "adapter_in_dim": 32, "adapter_out_dim": 64},
                "audio_config": {"downsample_hidden_size": 16, "adapter_input_size": 32, "adapter_out_dim": 64},
            },
            "apertus1p5": {
                "text_config": text("apertus1p5_text", vocab_size=291, output_vocab_size=259),
                "vision_config": {
                    "codebook_size": 16,
                    "embed_dim": 16,
                    "latent_channels": 16,
                    "base_channels": 32,
                    "channel_multiplier": [1],
                    "num_res_blocks": 1,
                },
                "audio_config": {
                    "model_type": "wavtokenizer_encoder",
                    "codebook_dim": 32,
                    "codebook_size": 16,
                    "num_filters": 2,
                },
                "image_token_offset": 259,
                "audio_token_offset": 275,
            },
            "fuyu": {"text_config": text("persimmon")},
            "got_ocr2": {
                "text_config": text("qwen2"),
                "vision_config": {"output_channels": 16, "global_attn_indexes": [0], "window_size": 2, "mlp_dim": 48},
            },
        }.items()
    ),
)
