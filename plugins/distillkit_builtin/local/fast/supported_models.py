"""The models that are known to be made of the parts that the fast path computes."""

from dataclasses import fields

from transformers import PreTrainedConfig

SUPPORTED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""`model_type`s of such models; each model is compared with its own forward all the same (`self_check.py`)."""
PLAIN_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that are a function of the position alone, not of how long the sequence is."""
KNOWN = frozenset(
    {
        # Read from the config, or found in the weights.
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "tie_word_embeddings", "rope_parameters",
        "attention_bias", "mlp_bias", "use_sliding_window", "sliding_window", "max_window_layers", "layer_types",
        # Of no weight in the forward: training, generation, and how transformers keeps a config.
        "attention_dropout", "initializer_range", "max_position_embeddings", "use_cache", "pretraining_tp",
        "pad_token_id", "bos_token_id", "eos_token_id",
    }
)  # fmt: skip
"""Values of such models' configs that are accounted for; with any other the plain path is taken."""


class UnsupportedModelError(Exception):
    """A model, or a device, that the fast path does not support; the message says why. The plain path is taken then."""


def require_supported(config: PreTrainedConfig) -> None:
    """Raise UnsupportedModelError unless every layer is full attention and SwiGLU between RMS norms."""
    kind = getattr(config, "model_type", "")
    if kind not in SUPPORTED:
        raise UnsupportedModelError(f"model type {kind!r} is none of {', '.join(sorted(SUPPORTED))}")
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise UnsupportedModelError("some of its layers do not attend to everything")
    if kind == "mistral" and getattr(config, "sliding_window", None):
        raise UnsupportedModelError("it attends to a sliding window")
    if getattr(config, "hidden_act", "") != "silu":
        raise UnsupportedModelError(f"its activation is {getattr(config, 'hidden_act', None)!r}, not silu")
    unknown = sorted({field.name for field in fields(type(config))} - _of_every_config() - KNOWN)
    if unknown:
        raise UnsupportedModelError(f"what {unknown[0]!r} in its config does is not known here")
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type", "default") not in PLAIN_ROTARY:
        raise UnsupportedModelError(f"its rotary embedding is of type {rotary.get('rope_type')!r}")


def _of_every_config() -> set[str]:
    return {field.name for field in fields(PreTrainedConfig)}
