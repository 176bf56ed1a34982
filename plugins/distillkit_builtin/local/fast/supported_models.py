"""The models that are known to be made of the parts that the fast path computes."""

SUPPORTED = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""`model_type`s of such models; each model is compared with its own forward all the same (`self_check.py`)."""
PLAIN_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that are a function of the position alone, not of how long the sequence is."""


class UnsupportedModelError(Exception):
    """A model, or a device, that the fast path does not support; the message says why. The plain path is taken then."""


def require_supported(config: object) -> None:
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
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type", "default") not in PLAIN_ROTARY:
        raise UnsupportedModelError(f"its rotary embedding is of type {rotary.get('rope_type')!r}")
