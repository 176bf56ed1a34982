"""Language models within models that also read images or sound."""

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
SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}
"""Rotary angles of time, height and width, of 8 in all: the same for a text."""
DEEP = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}

WRAPPERS: tuple[Family, ...] = tuple(
    Family(model_type, values, kind="wrapper")
    for model_type, values in {
        "mistral3": {"text_config": text("mistral", sliding_window=None), "vision_config": PIXTRAL},
        "mistral4": {"n_shared_experts": 1, "num_key_value_heads": 4},
        "mistral_large4": {"text_config": {"num_key_value_heads": 4, "n_shared_experts": 1}, "vision_config": PIXTRAL},
        "qwen2_vl": {"text_config": SECTIONS, "vision_config": {"hidden_size": 64}},
        "qwen2_5_vl": {"text_config": SECTIONS, "vision_config": {"fullatt_block_indexes": [0]}},
        "qwen3_vl": {"text_config": SECTIONS, "vision_config": DEEP},
        "qwen3_vl_moe": {"text_config": SECTIONS, "vision_config": DEEP},
        "qwen3_5": {"text_config": text("qwen3_5_text"), "vision_config": {"num_position_embeddings": 16}},
        "qwen3_5_moe": {"text_config": text("qwen3_5_moe_text"), "vision_config": {"num_position_embeddings": 16}},
        "gemma3": {"text_config": text("gemma3_text"), "vision_config": SIGLIP},
        "gemma4": {"text_config": text("gemma4_text"), "vision_config": {}},
        "gemma4_unified": {"text_config": text("gemma4_unified_text"), "vision_config": {}},
        "llama4": {"text_config": text("llama4_text"), "vision_config": {}},
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
        "glm4v": {"text_config": SECTIONS, "vision_config": {}},
        "glm4v_moe": {"text_config": SECTIONS, "vision_config": {}},
        "glm46v": {"text_config": {"model_type": "glm4v_text", **SECTIONS}, "vision_config": {}},
        "glm5_next": {"text_config": {}, "vision_config": {}},
        "glm_ocr": {"text_config": SECTIONS, "vision_config": {}},
        "glmga": {"text_config": {"model_type": "glm4v_moe_text", **SECTIONS}, "vision_config": {}},
        "aya_vision": {"text_config": text("cohere2"), "vision_config": SIGLIP},
        "cohere2_vision": {"text_config": text("cohere2"), "vision_config": SIGLIP},
        "cohere_compass": {"text_config": text("cohere_compass_text"), "vision_config": DEEP},
        "kimi_k25": {"text_config": text("deepseek_v3"), "vision_config": {}},
        "lfm2_vl": {"text_config": text("lfm2"), "vision_config": {"model_type": "siglip2_vision_model"}},
        "lfm3_vl": {"text_config": text("lfm3"), "vision_config": {}},
        "granite4_vision": {"text_config": text("granitemoehybrid"), "vision_config": SIGLIP},
        "granite_docling": {"text_config": text("granite"), "vision_config": {}},
        "ernie4_5_vl_moe": {"text_config": {}, "vision_config": {}},
        "voxtral": {"text_config": text("llama"), "audio_config": {"model_type": "voxtral_encoder"}},
        "qwen2_audio": {"text_config": text("qwen2"), "audio_config": {"model_type": "qwen2_audio_encoder"}},
        "phi4_multimodal": {"vision_config": {}, "audio_config": {}},
        "qwen2_5_omni_thinker": {
            "text_config": SECTIONS,
            "vision_config": {"fullatt_block_indexes": [0]},
            "audio_config": {},
        },
        "qwen3_omni_moe_thinker": {"text_config": SECTIONS, "vision_config": DEEP, "audio_config": {}},
        "paligemma": {"text_config": text("gemma"), "vision_config": SIGLIP},
        "minimax_m3_vl": {"text_config": text("minimax_m3_vl_text"), "vision_config": {}},
        "muse_glimmer": {"text_config": {}, "vision_config": {}},
        "muse_spark": {"text_config": {}, "vision_config": {}, "audio_config": {}},
        "step3p7": {"text_config": {}, "vision_config": {}},
        "hunyuan_vl": {"text_config": {}, "vision_config": {}},
        "hy_v4_vl": {"text_config": text("hy_v4"), "vision_config": {}},
        "deepseek_ocr2": {"text_config": {}, "vision_config": {}},
        "deepseek_vl": {"text_config": text("llama"), "vision_config": SIGLIP},
        "deepseek_vl_hybrid": {
            "text_config": text("llama"),
            "vision_config": SIGLIP,
            "high_res_vision_config": {"model_type": "sam_vision_model"},
        },
        "aria": {"text_config": text("aria_text"), "vision_config": {"model_type": "idefics3_vision"}},
        "exaone4_5": {"text_config": text("exaone4"), "vision_config": {}},
        "fast_vlm": {"text_config": text("qwen2"), "vision_config": {}},
        "hyperclovax_vision_v2": {
            "text_config": text("hyperclovax"),
            "vision_config": {"model_type": "qwen2_5_vl_vision"},
        },
        "inkling_mm_model": {"text_config": text("inkling_text"), "vision_config": {}, "audio_config": {}},
        "inkling2": {"text_config": text("inkling2_text"), "vision_config": {}},
        "inkling2_loop": {
            "text_config": text("inkling2_loop_text"),
            "vision_config": {"model_type": "inkling2_vision"},
        },
        "janus": {"text_config": text("llama"), "vision_config": {}, "vq_config": {}},
        "lighton_ocr": {"text_config": text("qwen3"), "vision_config": PIXTRAL},
        "minicpm_ocr": {"text_config": text("qwen3_5_text"), "vision_config": {"insert_layer_id": 0}},
        "minicpmv4_6": {"text_config": text("qwen3_5_text"), "vision_config": {"insert_layer_id": 0}},
        "minicpmv4_7": {"text_config": text("qwen3_5_text"), "vision_config": {"insert_layer_id": 0}},
        "molmo2": {"text_config": {}, "vision_config": {}, "adapter_config": {}},
        "nemotron_h_omni": {"text_config": text("nemotron_h"), "vision_config": {}, "audio_config": {}},
        "ovis2": {"text_config": text("qwen2"), "vision_config": {}},
        "paddleocr_vl": {"text_config": SECTIONS, "vision_config": {}},
        "perception_lm": {"text_config": text("llama"), "vision_config": {}},
        "qianfan_ocr": {"text_config": text("qwen3"), "vision_config": {}},
        "unlimited_ocr": {"text_config": {}, "vision_config": {}},
        "video_llama_3": {"text_config": text("qwen2"), "vision_config": {}},
        "qwen4_exp": {"text_config": text("qwen4_exp_text"), "vision_config": {"num_position_embeddings": 16}},
        "dots3_note": {"text_config": text("dots3_note_text"), "vision_config": {}, "audio_config": {}},
        "apertus1p5": {"text_config": text("apertus1p5_text"), "vision_config": {}, "audio_config": {}},
        "mllama": {"text_config": {"cross_attention_layers": [1]}, "vision_config": {}},
        "chameleon": {"vq_config": {}},
        "emu3": {"vq_config": {}, "text_config": {}},
        "fuyu": {"text_config": text("persimmon")},
        "got_ocr2": {"text_config": text("qwen2"), "vision_config": {}},
        "cosmos3_edge": {"text_config": {}, "vision_config": {}},
        "cosmos3_omni": {
            "text_config": {"model_type": "qwen3_vl_text", **SECTIONS},
            "vision_config": {"model_type": "qwen3_vl_vision", **DEEP},
        },
        "idefics": {"vision_config": {}, "perceiver_config": {}},
    }.items()
)
