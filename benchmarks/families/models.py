"""Random models of each family at a small real shape, and a tiny one of the same making."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from benchmarks.speed.inputs import write_tokenizer
from distillkit_builtin.local.model_files.model_class import auto_class

VOCABULARY, TINY_VOCABULARY = 32_000, 512
REAL: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 4096, "vocab_size": VOCABULARY,
}  # fmt: skip
TINY: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "vocab_size": TINY_VOCABULARY,
}  # fmt: skip
SPECIAL: dict[str, Any] = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "tie_word_embeddings": True}
LINEAR_THEN_FULL = ["linear_attention"] * 3 + ["full_attention"]
WINDOW_AND_FULL = ["sliding_attention"] * 3 + ["full_attention"]
CONVOLUTION_AND_FULL = ["conv", "conv", "full_attention", "conv"]


def _family(name: str, *, tiny: bool) -> dict[str, Any]:
    """What a family needs beside the sizes that all have."""
    window, experts = (12, 4) if tiny else (512, 32)
    repeats = 1 if tiny else 2
    mixture = {"moe_intermediate_size": 32 if tiny else 512, "num_experts_per_tok": 2 if tiny else 4}
    known: dict[str, dict[str, Any]] = {
        "qwen3_moe": {"num_experts": experts, **mixture, "norm_topk_prob": True},
        "qwen3_5_text": {
            "layer_types": LINEAR_THEN_FULL * repeats,
            "linear_num_key_heads": 2 if tiny else 8,
            "linear_num_value_heads": 4 if tiny else 16,
            "linear_key_head_dim": 16 if tiny else 64,
            "linear_value_head_dim": 16 if tiny else 64,
        },
        "gemma3_text": {"sliding_window": window, "layer_types": WINDOW_AND_FULL * repeats},
        "gpt_oss": {
            "intermediate_size": mixture["moe_intermediate_size"],
            "num_local_experts": experts,
            "num_experts_per_tok": mixture["num_experts_per_tok"],
            "sliding_window": 12 if tiny else 128,
            "layer_types": ["sliding_attention", "full_attention"] * 2 * repeats,
        },
        "olmo2": {},
        "granite": {"attention_multiplier": 0.125, "residual_multiplier": 0.5},
        "mistral3": {},
        "lfm2": {"layer_types": CONVOLUTION_AND_FULL * repeats, "block_auto_adjust_ff_dim": False},
    }
    return known[name]


FAMILIES = ("qwen3_moe", "qwen3_5_text", "gemma3_text", "gpt_oss", "olmo2", "granite", "mistral3", "lfm2")


def family_config(name: str, *, tiny: bool) -> PreTrainedConfig:
    """The config of a family."""
    sizes = {**(TINY if tiny else REAL), **SPECIAL, **_family(name, tiny=tiny)}
    if name != "mistral3":
        return AutoConfig.for_model(name, **sizes)
    pictures = {
        "model_type": "pixtral", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    text = {"model_type": "mistral", **sizes, "sliding_window": None}
    special = {name: value for name, value in SPECIAL.items() if name != "bos_token_id"}
    return AutoConfig.for_model("mistral3", text_config=text, vision_config=pictures, image_token_id=2, **special)


def write_model(folder: Path, name: str, seed: int, *, tiny: bool) -> None:
    """Weights in bfloat16 and a tokenizer of words; logits have a spread of about 1, so that no law is uniform."""
    config = family_config(name, tiny=tiny)
    torch.manual_seed(seed)
    model = auto_class(config).from_config(config, dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"  # a CPU takes a while for so many numbers
    with torch.no_grad():
        for parameter in model.to(device).parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    model.to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder, TINY_VOCABULARY if tiny else VOCABULARY)
