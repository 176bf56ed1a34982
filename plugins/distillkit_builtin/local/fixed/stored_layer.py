"""The memory of one layer's cache for a number of rows: filled behind a prompt, and lent to steps of fewer rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import (
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)

from distillkit_builtin.local.fixed.fixed_layers import FixedKeys, FixedKeysAndStates, FixedStates
from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError

KNOWN = (
    DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer, DummyLayer,
)  # fmt: skip
"""Layers of transformers' caches that can be kept in tensors that never move."""

CacheLayer = CacheLayerMixin | LinearAttentionCacheLayerMixin | DummyLayer


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """Tensors of [rows, ...]; a layer that keeps nothing has none."""

    keys: Tensor | None
    """[rows, heads, length, d]."""
    values: Tensor | None
    sliding: bool
    conv: Mapping[int, Tensor]
    recurrent: Mapping[int, Tensor]
    previous: Mapping[int, bool] | None
    """Of a recurrent layer: which of its states count as read."""

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        tensors = (self.keys, self.values, *self.conv.values(), *self.recurrent.values())
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @classmethod
    def allocate(cls, layer: CacheLayer, rows: int, length: int) -> "StoredLayer":
        """For `rows` rows of `length` tokens of what the `layer` keeps, which has read a prompt.

        Raises:
            UnsupportedStepError: if it keeps more than keys, values and states.
        """
        if type(layer) not in KNOWN:
            raise UnsupportedStepError(f"a layer keeps what it has read in a {type(layer).__name__}")
        keys, values = (_longer(getattr(layer, name, None), rows, length) for name in ("keys", "values"))
        conv, recurrent, previous = {}, {}, None
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            conv = {number: _wider(state, rows) for number, state in layer.conv_states.items() if state is not None}
            states = layer.recurrent_states.items()
            recurrent = {number: _wider(state, rows) for number, state in states if state is not None}
            previous = dict(layer.has_previous_state)
        return cls(keys, values, isinstance(layer, DynamicSlidingWindowLayer), conv, recurrent, previous)

    def fill(self, layer: CacheLayer, rows: Tensor, end: int) -> None:
        """Let the first rows hold the rows `rows` [n] of what `layer` keeps of prompts that end before column `end`."""
        for home, kept in ((self.keys, getattr(layer, "keys", None)), (self.values, getattr(layer, "values", None))):
            if home is not None and kept is not None:
                home[: len(rows)].zero_()  # what stands there is hidden, but would not be if it were not finite
                home[: len(rows), :, end - kept.shape[2] : end] = kept[rows]
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            for homes, states in ((self.conv, layer.conv_states), (self.recurrent, layer.recurrent_states)):
                for number, home in homes.items():
                    state = states[number]
                    if state is not None:
                        home[: len(rows)] = state[rows]

    def move(self, rows: Tensor, end: int) -> None:
        """Let the first rows be the rows `rows` [n] of now, of tokens before column `end`."""
        for home in (self.keys, self.values):
            if home is not None:
                home[: len(rows), :, :end] = home[rows, :, :end]
        for home in (*self.conv.values(), *self.recurrent.values()):
            home[: len(rows)] = home[rows]

    def lent(self, rows: int, length: int, place: Tensor) -> CacheLayer:
        """The first `rows` rows and `length` columns, as a layer of a cache; `place` as `FixedKeys` says."""
        keys = states = None
        if self.keys is not None and self.values is not None:
            kept = self.keys[:rows, :, :length], self.values[:rows, :, :length]
            keys = FixedKeys(*kept, place, sliding=self.sliding)
        if self.previous is not None:
            conv, recurrent = (
                {number: state[:rows] for number, state in whole.items()} for whole in (self.conv, self.recurrent)
            )
            states = FixedStates(conv, recurrent, self.previous)
        if keys is not None and states is not None:
            return FixedKeysAndStates(keys, states)
        return keys or states or DummyLayer()


def _longer(kept: Tensor | None, rows: int, length: int) -> Tensor | None:
    """Zeros for `rows` rows of `length` tokens like those that are kept [batch, heads, tokens, d]."""
    if kept is None:
        return None
    if kept.dim() != 4:
        raise UnsupportedStepError(f"a layer keeps keys and values in {kept.dim()} dimensions, not 4")
    return torch.zeros(rows, kept.shape[1], length, kept.shape[3], dtype=kept.dtype, device=kept.device)


def _wider(state: Tensor, rows: int) -> Tensor:
    return torch.zeros(rows, *state.shape[1:], dtype=state.dtype, device=state.device)
