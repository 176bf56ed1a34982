"""Small models with a tower for pictures or sound beside the text decoder, as transformers has them."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from distillkit_builtin.local.model_files.model_class import auto_class
from helpers.model_families import spread
from helpers.tiny_models import SMALL, write_tokenizer

VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
EYES: dict[str, Any] = {"depth": 1, "num_heads": 4, "out_hidden_size": 32}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
PICTURES: dict[str, Any] = {"image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252}
TEXT = {name: value for name, value in SMALL.items() if name != "head_dim"}
MORE: dict[str, dict[str, Any]] = {
    "mistral3": {"text_config": {**SMALL, "model_type": "mistral"}, "image_token_index": 250},
    "llava": {"text_config": {**TEXT, "model_type": "llama"}, "image_token_index": 250},
    "gemma3": {"text_config": {**SMALL, "sliding_window": 12}, "image_token_index": 250, "mm_tokens_per_image": 4},
    "qwen2_5_vl": {
        "text_config": {**TEXT, "rope_parameters": MROPE},
        "vision_config": {**VISION, **EYES, "fullatt_block_indexes": [0]},
        **PICTURES,
    },
    "llama4": {
        "text_config": {
            **SMALL, "intermediate_size_mlp": 48, "num_local_experts": 2, "num_experts_per_tok": 1,
            "attention_chunk_size": 16,
        },
        "vision_config": {
            **VISION, "vision_output_dim": 32, "projector_input_dim": 32, "projector_output_dim": 32,
        },
    },
    "gemma4": {
        "text_config": {
            **SMALL, "sliding_window": 12, "layer_types": ["sliding_attention", "full_attention"],
            "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 259, "num_kv_shared_layers": 0,
            "global_head_dim": 16,
        },
        "audio_config": None,
    },
}  # fmt: skip
ARCHITECTURES = {
    "mistral3": "Mistral3ForConditionalGeneration",
    "llava": "LlavaForConditionalGeneration",
    "gemma3": "Gemma3ForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "llama4": "Llama4ForConditionalGeneration",
    "gemma4": "Gemma4ForConditionalGeneration",
}


def wrapper_config(kind: str) -> PreTrainedConfig:
    """Of a small model of this kind, one that `ARCHITECTURES` has."""
    values = {
        "vision_config": VISION,
        **MORE[kind],
        "architectures": [ARCHITECTURES[kind]],
        "tie_word_embeddings": False,
    }
    return AutoConfig.for_model(kind, **values)


def write_wrapper(folder: Path, kind: str) -> str:
    """The model with random weights and a tokenizer; its distributions are far from uniform."""
    config = wrapper_config(kind)
    torch.manual_seed(0)
    model = auto_class(config).from_config(config)
    spread(model)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)
