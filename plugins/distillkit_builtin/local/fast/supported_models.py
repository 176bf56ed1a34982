"""The models that are known to be made of the parts that the fast path computes."""

from collections.abc import Mapping
from dataclasses import fields

from transformers import PreTrainedConfig

PLAIN_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that are a function of the position alone, not of how long the sequence is."""
ACTIVATIONS = frozenset({"silu", "gelu_pytorch_tanh"})
"""Of the gate in a feed-forward layer."""
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
"""Values of every such model's config that are accounted for; with any other the plain path is taken."""
MULTIPLIERS = frozenset({"embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"})
GEMMA = frozenset(
    {
        "hidden_activation", "query_pre_attn_scalar", "final_logit_softcapping", "attn_logit_softcapping",
        "use_bidirectional_attention",
    }
)  # fmt: skip
EXPERTS = frozenset(
    {
        "num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob",
        "decoder_sparse_step", "mlp_only_layers", "output_router_logits", "router_aux_loss_coef",
    }
)  # fmt: skip
FAMILIES: Mapping[str, frozenset[str]] = {
    "llama": frozenset(),
    "mistral": frozenset(),
    "ministral": frozenset(),
    "qwen2": frozenset(),
    "qwen3": frozenset(),
    "phi3": frozenset({"embd_pdrop", "resid_pdrop", "original_max_position_embeddings"}),
    "olmo2": frozenset(),
    "olmo3": frozenset(),
    "granite": MULTIPLIERS,
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "mixtral": EXPERTS | {"router_jitter_noise"},
    "qwen2_moe": EXPERTS | {"qkv_bias", "shared_expert_intermediate_size"},
    "qwen3_moe": EXPERTS,
    "olmoe": EXPERTS | {"clip_qkv"},
    "granitemoe": EXPERTS | MULTIPLIERS,
}
"""What else is accounted for, by `model_type`; each model is compared with its own forward too (`self_check.py`)."""
SUPPORTED = frozenset(FAMILIES)
NORMS_ABOUT_ONE = frozenset({"gemma", "gemma2", "gemma3_text"})
"""Where a norm multiplies by one more than its weight."""
UNSET = ("attn_logit_softcapping", "use_bidirectional_attention", "clip_qkv")
"""What is computed in another way where a config gives it a value."""


class UnsupportedModelError(Exception):
    """A model, or a device, that the fast path does not support; the message says why. The plain path is taken then."""


def require_supported(config: PreTrainedConfig) -> None:
    """Raise UnsupportedModelError unless every layer is of the parts that the fast path computes, by its config."""
    kind = getattr(config, "model_type", "")
    if kind not in SUPPORTED:
        raise UnsupportedModelError(f"model type {kind!r} is none of the {len(SUPPORTED)} that the fast path knows")
    if not set(getattr(config, "layer_types", None) or ()) <= {"full_attention", "sliding_attention"}:
        raise UnsupportedModelError("some of its layers attend neither to everything nor to a sliding window")
    if activation(config) not in ACTIVATIONS:
        raise UnsupportedModelError(f"its activation is {activation(config)!r}, none of {sorted(ACTIVATIONS)}")
    given = next((name for name in UNSET if getattr(config, name, None)), None)
    if given is not None:
        raise UnsupportedModelError(f"its {given} is {getattr(config, given)!r}")
    unknown = sorted({field.name for field in fields(type(config))} - _of_every_config() - KNOWN - FAMILIES[kind])
    if unknown:
        raise UnsupportedModelError(f"what {unknown[0]!r} in its config does is not known here")
    rotary = getattr(config, "rope_parameters", None) or {}
    for layer_type in rotary_kinds(config):
        of_type = (rotary if layer_type is None else rotary[layer_type]) or {}
        if of_type.get("rope_type", "default") not in PLAIN_ROTARY:
            raise UnsupportedModelError(f"its rotary embedding is of type {of_type.get('rope_type')!r}")
        if of_type.get("partial_rotary_factor", 1.0) != 1.0:
            raise UnsupportedModelError("its rotary embedding turns a part of each head alone")


def activation(config: PreTrainedConfig) -> str:
    """The name of the gate's activation, as transformers has it."""
    return str(getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None))


def windows(config: PreTrainedConfig) -> tuple[int | None, ...]:
    """How many tokens each layer attends to, the newest one counted in; None for all of them."""
    window = getattr(config, "sliding_window", None) or None
    if not getattr(config, "layer_types", None):
        return (window,) * int(config.num_hidden_layers)
    return tuple(window if kind == "sliding_attention" else None for kind in config.layer_types)


def rotary_kinds(config: PreTrainedConfig) -> tuple[str | None, ...]:
    """The layer types that have a rotary embedding of their own; `(None,)` where all layers have the same."""
    rotary = getattr(config, "rope_parameters", None) or {}
    types = sorted(set(getattr(config, "layer_types", None) or ()))
    return tuple(types) if types and set(types) <= set(rotary) else (None,)


def _of_every_config() -> set[str]:
    return {field.name for field in fields(PreTrainedConfig)}
