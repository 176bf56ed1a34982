"""The backbone of a model over its own weights, with fewer and larger operations than transformers' forward.

What differs from family to family is found in the model's parts (`layer_weights.py`): where the norms are, how queries
and keys are normed, scales, windows, rotary embeddings, experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.nn import functional

from distillkit_builtin.local.fast.behind_attention import TILES, BehindAttention, runs_on
from distillkit_builtin.local.fast.layer_weights import LayerWeights
from distillkit_builtin.local.fast.projection import Projection
from distillkit_builtin.local.fast.rotary import RotaryAngles
from distillkit_builtin.local.fast.supported_models import (
    NORMS_ABOUT_ONE,
    UnsupportedModelError,
    require_supported,
    rotary_kinds,
    windows,
)
from distillkit_builtin.local.lora.lora import AdaptedLinear
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.fused_ops import add_and_norm, norm_projections, normed_and_rotated, rms_norm
from distillkit_builtin.local.model_files.model_class import text_decoder


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
    """[n, d], as `sin`; see `RotaryAngles`."""
    sin: Tensor
    eps: float
    about_one: bool
    """Whether norms multiply by one more than their weights."""
    scale: float
    """What scores are multiplied by."""
    window: int | None
    """How many tokens are attended to, the token itself counted in; None for all."""

    @property
    def query_heads(self) -> int:
        """How many heads of `query_key` are queries."""
        return self.query_key.shape[1] - self.value.shape[1]

    def rotated(self) -> Sequence[Tensor]:
        """Queries [n, heads, d] and keys [n, kv_heads, d], normed and rotated by their positions' angles."""
        norms = self.query_norm, self.key_norm
        both = normed_and_rotated(
            self.query_key, *norms, self.cos, self.sin, self.eps, self.about_one, self.query_heads
        )
        return torch.split(both, [self.query_heads, self.value.shape[1]], dim=1)


class Attention(Protocol):
    """Attention of one layer over the keys and values that are kept of earlier tokens, and over the new ones."""

    def __call__(self, layer: int, inputs: AttentionInputs) -> Tensor:
        """The mixed values [n, heads * d] of n new tokens."""
        ...


class FastBackbone:
    """The backbone of `causal_lm`, whose parameters must stay where they are: they are changed in place only."""

    def __init__(self, causal_lm: CausalLM) -> None:
        """Lay the weights side by side. Raises UnsupportedModelError for a model that is made in another way."""
        self.causal_lm = causal_lm
        self.config = causal_lm.model.config.get_text_config()
        require_supported(self.config)
        _require_known_adapters(causal_lm)
        self.decoder = text_decoder(causal_lm.model)
        embedding = causal_lm.model.get_input_embeddings()
        self._embedding = embedding.get_parameter("weight")
        self._embedding_scale = _embedding_scale(self.decoder, embedding)
        self.vocabulary_size = len(self._embedding)
        adapted = causal_lm.adapter is None  # a sampling copy's, if there is any; else it is off
        layers = self.decoder.get_submodule("layers").children()
        self.layers = [LayerWeights.of(layer, self.config, adapted=adapted) for layer in layers]
        self.windows = windows(self.config)
        kinds = rotary_kinds(self.config)
        types = (None,) * len(self.layers) if kinds == (None,) else self.config.layer_types
        self._kinds = [kinds.index(kind) for kind in types]
        self._last_norm = self.decoder.get_submodule("norm").get_parameter("weight")
        self._eps = float(self.config.rms_norm_eps)
        self._about_one = self.config.model_type in NORMS_ABOUT_ONE
        self.heads = int(self.config.num_attention_heads)
        self.kv_heads = int(self.config.num_key_value_heads)
        self.head_dim = self.layers[0].out.weight.shape[1] // self.heads
        self.behind = self._behind_attention()
        """By layer: its part behind attention, where one kernel may compute that."""

    def rotary(self, length: int) -> RotaryAngles:
        """Of positions 0 .. length - 1."""
        module = self.decoder.get_submodule("rotary_emb")
        return RotaryAngles.of(module, self.config, length, self.causal_lm.device.device)

    def __call__(self, ids: Tensor, angles: RotaryAngles, attention: Attention) -> Tensor:
        """The last hidden states [n, hidden] of tokens `ids` [n] at positions with `angles` [n]."""
        residual = self.embed(ids)
        read = self.first_read(0, residual)
        for index in range(len(self.layers)):
            residual, read = self.layer(index, residual, read, angles, attention)
        return read

    def embed(self, ids: Tensor) -> Tensor:
        """What the first layer reads of tokens `ids` [n]: [n, hidden]."""
        embedded = functional.embedding(ids, self._embedding)
        return embedded if self._embedding_scale is None else embedded * self._embedding_scale

    def first_read(self, index: int, residual: Tensor) -> Tensor:
        """The queries, keys and values [n, q + k + v] that layer `index` begins with, of hidden states [n, hidden]."""
        layer = self.layers[index]
        norm = layer.norm_before
        return layer.qkv(residual if norm is None else rms_norm(residual, norm, self._eps, self._about_one))

    def layer(
        self, index: int, residual: Tensor, qkv: Tensor, angles: RotaryAngles, attention: Attention
    ) -> tuple[Tensor, Tensor]:
        """Hidden states [n, hidden] behind layer `index`, and what follows it of them.

        That is the next layer's queries, keys and values, as `first_read` gives them, or what the head reads; `qkv` are
        this one's.
        """
        mixed, behind = attention(index, self._attention_inputs(index, qkv, angles)), self.behind[index]
        if behind is not None and behind.takes(residual, mixed):
            # Triton comes with PyTorch for CUDA alone.
            from distillkit_builtin.local.fast.behind_attention_kernel import behind_attention

            return behind_attention(behind, TILES, residual, mixed)
        layer, how = self.layers[index], (self.layers[index].residual_scale, self._eps, self._about_one)
        residual, hidden = add_and_norm(
            residual, layer.out.parts(mixed), layer.norm_behind_attention, layer.norm_between, *how
        )
        norm, following = self._after(index)
        residual, hidden = add_and_norm(residual, layer.feed_forward(hidden), layer.norm_behind, norm, *how)
        return residual, hidden if following is None else following(hidden)

    def _after(self, index: int) -> tuple[Tensor | None, Projection | None]:
        """The norm of what layer `index` gives, and what the next layer projects it by; None before the head."""
        if index + 1 == len(self.layers):
            return self._last_norm, None
        return self.layers[index + 1].norm_before, self.layers[index + 1].qkv

    def _behind_attention(self) -> list[BehindAttention | None]:
        device = self.causal_lm.device.device
        if not runs_on(device):
            return [None] * len(self.layers)
        counter = torch.zeros(1, dtype=torch.int32, device=device)
        return [
            BehindAttention.of(layer, *self._after(index), eps=self._eps, about_one=self._about_one, counter=counter)
            for index, layer in enumerate(self.layers)
        ]

    def _attention_inputs(self, index: int, qkv: Tensor, angles: RotaryAngles) -> AttentionInputs:
        layer, kind = self.layers[index], self._kinds[index]
        count = self.heads + self.kv_heads
        query_key, value = qkv.unflatten(1, (-1, self.head_dim)).split([count, self.kv_heads], dim=1)
        norms = layer.query_norm, layer.key_norm
        if norms[0] is not None and norms[1] is not None and len(norms[0]) != self.head_dim:
            normed = norm_projections(qkv, norms[0], norms[1], self._eps, self._about_one)
            query_key, norms = normed.unflatten(1, (-1, self.head_dim)), (None, None)
        return AttentionInputs(
            query_key, value, *norms, angles.cos[kind], angles.sin[kind], self._eps, self._about_one,
            layer.attention_scale, self.windows[index],
        )  # fmt: skip


def _embedding_scale(decoder: nn.Module, embedding: nn.Module) -> float | None:
    """What embeddings are multiplied by, in the embeddings' dtype as Gemma does; None for nothing."""
    scale = getattr(embedding, "embed_scale", getattr(decoder, "embedding_multiplier", 1.0))
    if isinstance(scale, Tensor):
        scale = scale.to(embedding.get_parameter("weight").dtype)
    return None if scale == 1.0 else float(scale)


def _require_known_adapters(causal_lm: CausalLM) -> None:
    """Raise UnsupportedModelError if the model computes with adapter layers whose weights are not read here.

    The student's LoRA is off whenever its base is computed; what was not merged in a sampling copy is on.
    """
    adapters = (AuxiliaryTrainingWrapper,) if causal_lm.adapter else (BaseTunerLayer, AuxiliaryTrainingWrapper)
    for module in causal_lm.model.modules():
        if isinstance(module, adapters) and not isinstance(module, AdaptedLinear):
            raise UnsupportedModelError(
                f"its adapter ({type(module).__name__}) cannot be added to its layers' weights, as to those in few bits"
            )
