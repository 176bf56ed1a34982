"""The backbone of a Llama-like model over its own weights, with fewer and larger operations than transformers' forward.

The weights are the model's: what reads the same input is laid side by side in memory, and the model's parameters
become views of that, so an update of the model in place is an update of the backbone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn import functional

from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.fused_ops import add_norm, gated, norm, rotated

KNOWN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""`model_type`s whose layers are made as here; each model is compared with its own forward all the same."""
PLAIN_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that are a function of the position alone, not of how long the sequence is."""


class UnsupportedModelError(Exception):
    """This model is none that the fast path knows; the message says why."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What one layer attends with: of n new tokens, before their positions are in them."""

    both: Tensor
    """[n, heads + kv_heads, d] queries, then keys."""
    value: Tensor
    """[n, kv_heads, d]"""
    query_norm: Tensor | None
    """[d], as `key_norm`; None where heads are not normed."""
    key_norm: Tensor | None
    cos: Tensor
    """[n, d], as `sin`; see `FastBackbone.rotary`."""
    sin: Tensor
    eps: float

    @property
    def queries(self) -> int:
        """Heads of queries."""
        return self.both.shape[1] - self.value.shape[1]

    def turned(self) -> Sequence[Tensor]:
        """Queries [n, heads, d] and keys [n, kv_heads, d], normed and turned by their positions' angles."""
        both = rotated(self.both, self.query_norm, self.key_norm, self.cos, self.sin, self.eps, self.queries)
        return torch.split(both, [self.queries, self.value.shape[1]], dim=1)


class Attend(Protocol):
    """Attention of one layer over whatever was kept of earlier tokens."""

    def __call__(self, layer: int, heads: Heads) -> Tensor:
        """[n, heads * d] of n new tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights."""

    norm_before: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    norm_between: Tensor
    gate_up: Tensor
    down: Tensor


class FastBackbone:
    """The backbone of `causal_lm`, whose parameters must stay where they are: they are changed in place only."""

    def __init__(self, causal_lm: CausalLM) -> None:
        """Lay the weights side by side. Raises UnsupportedModelError for a model that is made in another way."""
        self.causal_lm = causal_lm
        self.config = causal_lm.model.config.get_text_config()
        require_known(self.config)
        backbone = causal_lm.backbone
        self._embedding = causal_lm.model.get_input_embeddings().get_parameter("weight")
        self.vocabulary = len(self._embedding)
        self._rotary: nn.Module = backbone.get_submodule("rotary_emb")
        layers = list(backbone.get_submodule("layers").children())
        self.layers = [_read(layer) for layer in layers]
        self._last_norm = backbone.get_submodule("norm").get_parameter("weight")
        self._eps = float(self.config.rms_norm_eps)
        self.heads = int(self.config.num_attention_heads)
        self.kv_heads = int(self.config.num_key_value_heads)
        self.head_dim = self.layers[0].out.shape[1] // self.heads
        self.scale = self.head_dim**-0.5

    def rotary(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [length, d] in float32 of the positions 0 .. length - 1, as `rotated` takes them."""
        device = self.causal_lm.device.device
        cos, sin = self._rotary(torch.empty(0, device=device), torch.arange(length, device=device)[None])
        first, second = sin[0].float().chunk(2, dim=-1)
        return cos[0].float(), torch.cat([-first, second], dim=-1)

    def __call__(self, ids: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        """The last hidden states [n, hidden] of tokens `ids` [n] at positions with `cos` and `sin` [n, d]."""
        residual = functional.embedding(ids, self._embedding)
        hidden = norm(residual, self.layers[0].norm_before, self._eps)
        following = [layer.norm_before for layer in self.layers[1:]] + [self._last_norm]
        for place, (layer, next_norm) in enumerate(zip(self.layers, following, strict=True)):
            both, value = self._split(functional.linear(hidden, layer.qkv, layer.qkv_bias))
            heads = Heads(both, value, layer.query_norm, layer.key_norm, cos, sin, self._eps)
            mixed = functional.linear(attend(place, heads), layer.out, layer.out_bias)
            residual, hidden = add_norm(residual, mixed, layer.norm_between, self._eps)
            wide = gated(functional.linear(hidden, layer.gate_up))
            residual, hidden = add_norm(residual, functional.linear(wide, layer.down), next_norm, self._eps)
        return hidden

    def _split(self, qkv: Tensor) -> Sequence[Tensor]:
        heads: Tensor = qkv.unflatten(1, (-1, self.head_dim))
        return torch.split(heads, [self.heads + self.kv_heads, self.kv_heads], dim=1)


def require_known(config: object) -> None:
    """Raise UnsupportedModelError unless every layer is full attention and SwiGLU between RMS norms."""
    kind = getattr(config, "model_type", "")
    if kind not in KNOWN:
        raise UnsupportedModelError(f"model type {kind!r} is none of {', '.join(sorted(KNOWN))}")
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise UnsupportedModelError("some of its layers do not attend to everything")
    if kind == "mistral" and getattr(config, "sliding_window", None):
        raise UnsupportedModelError("it attends to a sliding window")
    if getattr(config, "hidden_act", "") != "silu":
        raise UnsupportedModelError(f"its activation is {getattr(config, 'hidden_act', None)!r}, not silu")
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type", "default") not in PLAIN_ROTARY:
        raise UnsupportedModelError(f"its rotary embedding is of type {rotary.get('rope_type')!r}")


def _read(layer: nn.Module) -> Layer:
    attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
    projections = [_linear(attention, f"{name}_proj") for name in "qkv"]
    out, down = _linear(attention, "o_proj"), _linear(mlp, "down_proj")
    gate_up = [_linear(mlp, f"{name}_proj") for name in ("gate", "up")]
    if down.bias is not None or any(linear.bias is not None for linear in gate_up):
        raise UnsupportedModelError("its feed-forward layers have biases")
    biases = [linear.bias for linear in projections]
    if None in biases and any(bias is not None for bias in biases):
        raise UnsupportedModelError("some of its query, key and value projections have biases, some not")
    return Layer(
        norm_before=layer.get_submodule("input_layernorm").get_parameter("weight"),
        qkv=side_by_side([linear.weight for linear in projections]),
        qkv_bias=None if None in biases else side_by_side(biases),
        query_norm=_norm_weight(attention, "q_norm"),
        key_norm=_norm_weight(attention, "k_norm"),
        out=out.weight,
        out_bias=out.bias,
        norm_between=layer.get_submodule("post_attention_layernorm").get_parameter("weight"),
        gate_up=side_by_side([linear.weight for linear in gate_up]),
        down=down.weight,
    )


def _linear(parent: nn.Module, name: str) -> nn.Linear:
    """The layer itself, also where a LoRA is wrapped around it."""
    module = parent.get_submodule(name)
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    if type(base) is not nn.Linear:
        raise UnsupportedModelError(f"{name} is a {type(base).__name__}")
    return base


def _norm_weight(attention: nn.Module, name: str) -> Tensor | None:
    return attention.get_submodule(name).get_parameter("weight") if hasattr(attention, name) else None


def side_by_side(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One tensor with all rows of `parameters`, which become views of it, unless they are that already."""
    first = parameters[0].data
    if not _lie_side_by_side(parameters):
        whole = torch.cat([parameter.data for parameter in parameters])
        for parameter, rows in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
            parameter.data = rows
        return whole
    rows = sum(map(len, parameters))
    return first.as_strided((rows, *first.shape[1:]), first.stride())


def _lie_side_by_side(parameters: Sequence[nn.Parameter]) -> bool:
    storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    ends = [parameter.data_ptr() + parameter.numel() * parameter.element_size() for parameter in parameters]
    follow = all(p.data_ptr() == end for p, end in zip(parameters[1:], ends, strict=False))
    return len(storages) == 1 and follow and all(parameter.is_contiguous() for parameter in parameters)
