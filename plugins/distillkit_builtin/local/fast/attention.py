"""Attention in the fast backbone: over whole sequences, and of one new token a slot over what its slot holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from distillkit_builtin.local.fast.backbone import AttentionInputs
from distillkit_builtin.local.fast.kv_slots import KVSlots

KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values [batch, kv_heads, length, d] of tokens that were computed, a layer at a time."""

Keep = Callable[[int, Tensor, Tensor], None]
"""Takes a layer's number, keys and values as they were computed: parts of tensors that hold queries too, so whoever
keeps them copies them."""


def copied_into(kept: KeysValues) -> Keep:
    """Appends each layer's keys and values to `kept`, without what lies beside them in memory."""

    def keep(layer: int, key: Tensor, value: Tensor) -> None:
        kept.append((key.contiguous(), value.contiguous()))

    return keep


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
    keep: Keep | None = None
    """What is given their keys and values [batch, kv_heads, length, d], a layer at a time."""
    prefixes: Sequence[Prefix] = ()
    """What stands before each sequence, in order."""
    masks: dict[int | None, Tensor] = field(default_factory=dict)
    """[batch or 1, 1, length, earlier + length] what each token attends to, by window; made when a layer needs it."""

    def __call__(self, layer: int, inputs: AttentionInputs) -> Tensor:
        """The mixed values [n, heads * d]."""
        parts = (*inputs.rotated(), inputs.value)
        query, key, value = (x.unflatten(0, (-1, self.length)).transpose(1, 2) for x in parts)
        if self.keep is not None:
            self.keep(layer, key, value)
        if self.prefixes:
            earlier = [prefix.of_layer(layer) for prefix in self.prefixes]
            key, value = (torch.cat([*old, new], dim=2) for *old, new in zip(*earlier, (key, value), strict=True))
        mask, share = self._mask(inputs.window, key), query.shape[1] // key.shape[1]
        if mask is not None and share > 1 and mask.is_cuda:  # PyTorch has no kernel there for both but its slowest
            key, value = (x.repeat_interleave(share, dim=1) for x in (key, value))
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            scale=inputs.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    def _mask(self, window: int | None, key: Tensor) -> Tensor | None:
        """None where every token attends to all before it, and nothing stands before its sequence."""
        if window is not None and window >= key.shape[2]:
            window = None
        if window is None and not self.prefixes:
            return None
        if window not in self.masks:
            self.masks[window] = self._visible(window, key.device)
        return self.masks[window]

    def _visible(self, window: int | None, device: torch.device) -> Tensor:
        own = torch.arange(self.length, device=device)[None]
        start, positions, present = torch.zeros_like(own[:, :1]), [], []
        for prefix in self.prefixes:
            mask = prefix.mask
            positions.append((start + torch.arange(mask.shape[1], device=device)).expand_as(mask))
            present.append(mask)
            start = start + prefix.lengths[prefix.rows][:, None]
        query = (start + own)[:, :, None]
        positions.append(query[:, :, 0])
        present.append(torch.ones_like(positions[-1], dtype=torch.bool))
        keys = torch.cat(positions, dim=1)[:, None]
        visible = torch.cat(present, dim=1)[:, None] & (keys <= query)
        if window is not None:
            visible &= keys > query - window
        return visible[:, None]


@dataclass(frozen=True, slots=True)
class DecodeAttention:
    """Of one token a slot, for the first n slots, at their `positions` [n]; its keys and values are written there."""

    slots: KVSlots
    positions: Tensor
    length: int
    """No position is this large."""

    def __call__(self, layer: int, inputs: AttentionInputs) -> Tensor:
        """The mixed values [n, heads * d]."""
        keys, values = self.slots.keys[layer], self.slots.values[layer]
        if keys.is_cuda:
            from distillkit_builtin.local.fast.decode_kernel import fused_decode_attention

            return fused_decode_attention(inputs, keys, values, self.positions)
        return plain_decode_attention(inputs, keys, values, self.positions, self.length)


def plain_decode_attention(
    inputs: AttentionInputs, keys: Tensor, values: Tensor, positions: Tensor, length: int
) -> Tensor:
    """What `decode_kernel.fused_decode_attention` computes, by PyTorch's own operations, up to `length`."""
    query, key = inputs.rotated()
    count, heads, width = query.shape
    kv_heads = key.shape[1]
    rows = torch.arange(count, device=query.device)
    keys[rows, :, positions] = key
    values[rows, :, positions] = inputs.value
    past, newest = torch.arange(length, device=query.device), positions[:, None]
    mask = past <= newest if inputs.window is None else (past <= newest) & (past > newest - inputs.window)
    # Query heads that share a key-value head stand where a sequence's tokens usually do: keys are read once for them.
    mixed = functional.scaled_dot_product_attention(
        query.unflatten(1, (kv_heads, -1)),
        keys[:count, :, :length],
        values[:count, :, :length],
        attn_mask=mask[:, None, None].expand(-1, -1, heads // kv_heads, -1),
        scale=inputs.scale,
    )
    return mixed.reshape(count, heads * width)
