"""The backbone of a Llama-like model over its own weights, with fewer and larger operations than transformers' forward.

Weights that read the same input are laid side by side in memory, and the model's parameters become views of that, so an
update of the model in place is an update of this backbone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.nn import functional

from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.fused_ops import add_rms_norm, normed_and_rotated, rms_norm, swiglu
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, require_supported


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What one layer attends with: of n new tokens, before norms and rotary embeddings."""

    query_key: Tensor
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
    def query_heads(self) -> int:
        """How many heads of `query_key` are queries."""
        return self.query_key.shape[1] - self.value.shape[1]

    def rotated(self) -> Sequence[Tensor]:
        """Queries [n, heads, d] and keys [n, kv_heads, d], normed and rotated by their positions' angles."""
        heads = self.query_heads
        both = normed_and_rotated(self.query_key, self.query_norm, self.key_norm, self.cos, self.sin, self.eps, heads)
        return torch.split(both, [heads, self.value.shape[1]], dim=1)


class Attention(Protocol):
    """Attention of one layer over the keys and values that are kept of earlier tokens, and over the new ones."""

    def __call__(self, layer: int, inputs: AttentionInputs) -> Tensor:
        """The mixed values [n, heads * d] of n new tokens."""
        ...


@dataclass(frozen=True, slots=True)
class LayerWeights:
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
        require_supported(self.config)
        _require_adapters_off(causal_lm)
        backbone = causal_lm.backbone
        self._embedding = causal_lm.model.get_input_embeddings().get_parameter("weight")
        self.vocabulary_size = len(self._embedding)
        self._rotary: nn.Module = backbone.get_submodule("rotary_emb")
        self.layers = [_layer_weights(layer) for layer in backbone.get_submodule("layers").children()]
        self._last_norm = backbone.get_submodule("norm").get_parameter("weight")
        self._eps = float(self.config.rms_norm_eps)
        self.heads = int(self.config.num_attention_heads)
        self.kv_heads = int(self.config.num_key_value_heads)
        self.head_dim = self.layers[0].out.shape[1] // self.heads
        self.scale = self.head_dim**-0.5

    def rotary(self, length: int) -> tuple[Tensor, Tensor]:
        """Float32 cosines and sines [length, d] of positions 0 .. length - 1, as `normed_and_rotated` takes them."""
        device = self.causal_lm.device.device
        cos, sin = self._rotary(torch.empty(0, device=device), torch.arange(length, device=device)[None])
        first, second = sin[0].float().chunk(2, dim=-1)
        return cos[0].float(), torch.cat([-first, second], dim=-1)

    def __call__(self, ids: Tensor, cos: Tensor, sin: Tensor, attention: Attention) -> Tensor:
        """The last hidden states [n, hidden] of tokens `ids` [n] at positions with `cos` and `sin` [n, d]."""
        residual = functional.embedding(ids, self._embedding)
        hidden = rms_norm(residual, self.layers[0].norm_before, self._eps)
        following = [layer.norm_before for layer in self.layers[1:]] + [self._last_norm]
        for index, (layer, next_norm) in enumerate(zip(self.layers, following, strict=True)):
            query_key, value = self._split(functional.linear(hidden, layer.qkv, layer.qkv_bias))
            inputs = AttentionInputs(query_key, value, layer.query_norm, layer.key_norm, cos, sin, self._eps)
            mixed = functional.linear(attention(index, inputs), layer.out, layer.out_bias)
            residual, hidden = add_rms_norm(residual, mixed, layer.norm_between, self._eps)
            wide = swiglu(functional.linear(hidden, layer.gate_up))
            residual, hidden = add_rms_norm(residual, functional.linear(wide, layer.down), next_norm, self._eps)
        return hidden

    def _split(self, qkv: Tensor) -> Sequence[Tensor]:
        heads: Tensor = qkv.unflatten(1, (-1, self.head_dim))
        return torch.split(heads, [self.heads + self.kv_heads, self.kv_heads], dim=1)


def _require_adapters_off(causal_lm: CausalLM) -> None:
    """Raise UnsupportedModelError if the model computes with adapter layers, whose weights are not read here.

    The student's LoRA is off whenever its base is computed; a sampling copy has those that could not be merged, on.
    """
    never_off = (
        AuxiliaryTrainingWrapper if causal_lm.adapter is not None else (BaseTunerLayer, AuxiliaryTrainingWrapper)
    )
    found = next((module for module in causal_lm.model.modules() if isinstance(module, never_off)), None)
    if found is not None:
        raise UnsupportedModelError(f"its adapter ({type(found).__name__}) is not part of its weights")


def _layer_weights(layer: nn.Module) -> LayerWeights:
    attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
    projections = [_linear(attention, f"{name}_proj") for name in "qkv"]
    out, down = _linear(attention, "o_proj"), _linear(mlp, "down_proj")
    gate_up = [_linear(mlp, f"{name}_proj") for name in ("gate", "up")]
    if down.bias is not None or any(linear.bias is not None for linear in gate_up):
        raise UnsupportedModelError("its feed-forward layers have biases")
    biases = [linear.bias for linear in projections]
    if None in biases and any(bias is not None for bias in biases):
        raise UnsupportedModelError("some of its query, key and value projections have biases, some not")
    return LayerWeights(
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
