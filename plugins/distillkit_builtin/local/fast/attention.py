"""Attention in the fast backbone: over whole sequences, and of one new token a slot over what its slot holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distillkit_builtin.local.fast.backbone import AttentionInputs
from distillkit_builtin.local.fast.kv_slots import KVSlots

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values [batch, kv_heads, length, d] of tokens that were computed, a layer at a time."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that stand before some sequences, and were computed already."""

    keys_values: KeysValues
    """Of p prefixes [p, kv_heads, earlier, d], padded on the right."""
    rows: Tensor
    """[batch] which of them stands before each sequence."""
    lengths: Tensor
    """[p] how long each is."""

    def of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, kv_heads, earlier, d], a row a sequence."""
        key, value = self.keys_values[layer]
        if len(key) == 1:  # not copied yet
            return key.expand(len(self.rows), -1, -1, -1), value.expand(len(self.rows), -1, -1, -1)
        return key[self.rows], value[self.rows]

    @property
    def mask(self) -> Tensor:
        """[batch, earlier]: which of its tokens are not padding."""
        earlier = self.keys_values[0][0].shape[2]
        return (torch.arange(earlier, device=self.rows.device) < self.lengths[:, None])[self.rows]


@dataclass(frozen=True, slots=True)
class CausalAttention:
    """Of sequences of one length, end to end: `n = batch * length`."""

    length: int
    scale: float
    kept: KeysValues | None = None
    """A list to which their keys and values are appended."""
    prefixes: Sequence[Prefix] = ()
    """The prefix of each sequence, in order."""
    mask: Tensor | None = None
    """[batch, 1, length, earlier + length] what each token attends to where something stands before it."""

    @classmethod
    def behind(
        cls, length: int, scale: float, prefixes: Sequence[Prefix], kept: KeysValues | None = None
    ) -> "CausalAttention":
        """Attention of sequences that attend to prefixes before them, if any; `kept` as the field."""
        if not prefixes:
            return cls(length, scale, kept)
        batch, device = len(prefixes[0].rows), prefixes[0].rows.device
        own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        parts = [prefix.mask[:, None].expand(-1, length, -1) for prefix in prefixes]
        mask = torch.cat([*parts, own.expand(batch, -1, -1)], dim=2)[:, None]
        return cls(length, scale, kept, prefixes, mask)

    def __call__(self, layer: int, inputs: AttentionInputs) -> Tensor:
        """The mixed values [n, heads * d]."""
        parts = (*inputs.rotated(), inputs.value)
        query, key, value = (x.unflatten(0, (-1, self.length)).transpose(1, 2) for x in parts)
        if self.kept is not None:
            self.kept.append((key, value))
        if self.prefixes:
            earlier = [prefix.of_layer(layer) for prefix in self.prefixes]
            key, value = (torch.cat([*old, new], dim=2) for *old, new in zip(*earlier, (key, value), strict=True))
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self.mask,
            is_causal=self.mask is None,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class DecodeAttention:
    """Of one token a slot, for the first n slots, at their `positions` [n]; its keys and values are written there."""

    slots: KVSlots
    positions: Tensor
    scale: float
    length: int
    """No position is this large."""

    def __call__(self, layer: int, inputs: AttentionInputs) -> Tensor:
        """The mixed values [n, heads * d]."""
        keys, values = self.slots.keys[layer], self.slots.values[layer]
        if keys.is_cuda:
            from distillkit_builtin.local.fast.decode_kernel import fused_decode_attention

            return fused_decode_attention(inputs, keys, values, self.positions, self.scale)
        return plain_decode_attention(inputs, keys, values, self.positions, self.scale, self.length)


def plain_decode_attention(
    inputs: AttentionInputs, keys: Tensor, values: Tensor, positions: Tensor, scale: float, length: int
) -> Tensor:
    """What `decode_kernel.fused_decode_attention` computes, by PyTorch's own operations, up to `length`."""
    query, key = inputs.rotated()
    count, heads, width = query.shape
    kv_heads = key.shape[1]
    rows = torch.arange(count, device=query.device)
    keys[rows, :, positions] = key
    values[rows, :, positions] = inputs.value
    mask = torch.arange(length, device=query.device) <= positions[:, None]
    # Query heads that share a key-value head stand where a sequence's tokens usually do: keys are read once for them.
    mixed = functional.scaled_dot_product_attention(
        query.unflatten(1, (kv_heads, -1)),
        keys[:count, :, :length],
        values[:count, :, :length],
        attn_mask=mask[:, None, None].expand(-1, -1, heads // kv_heads, -1),
        scale=scale,
    )
    return mixed.reshape(count, heads * width)
