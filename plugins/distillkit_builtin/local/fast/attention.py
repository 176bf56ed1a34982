"""Attention in the fast backbone: over whole prompts, and of one new token a slot over what its slot holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distillkit_builtin.local.fast.backbone import Heads
from distillkit_builtin.local.fast.kv_slots import Slots

Kept = list[tuple[Tensor, Tensor]]
"""Keys and values [batch, kv_heads, length, d] of tokens that were read, a layer at a time."""


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before some sequences, and was read already."""

    kept: Kept
    """Of some beginnings [beginnings, kv_heads, earlier, d], padded on the right."""
    rows: Tensor
    """[batch] which of them stands before each sequence."""
    lengths: Tensor
    """[beginnings] how long each is."""

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [batch, kv_heads, earlier, d], one row a sequence."""
        key, value = self.kept[layer]
        if len(key) == 1:  # not copied yet
            return key.expand(len(self.rows), -1, -1, -1), value.expand(len(self.rows), -1, -1, -1)
        return key[self.rows], value[self.rows]

    @property
    def seen(self) -> Tensor:
        """[batch, earlier]: padding is not."""
        earlier = self.kept[0][0].shape[2]
        return (torch.arange(earlier, device=self.rows.device) < self.lengths[:, None])[self.rows]


@dataclass(frozen=True, slots=True)
class Causal:
    """Sequences of one length, end to end: `n = batch * length`."""

    length: int
    scale: float
    kept: Kept | None = None
    """Where to put their keys and values."""
    before: Sequence[Before] = ()
    """What stands before each of them, in order."""
    seen: Tensor | None = None
    """[batch, 1, length, earlier + length] what each token attends to where something stands before it."""

    @classmethod
    def behind(cls, length: int, scale: float, before: Sequence[Before], kept: Kept | None = None) -> "Causal":
        """Sequences behind what was read before."""
        if not before:
            return cls(length, scale, kept)
        batch, device = len(before[0].rows), before[0].rows.device
        own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        parts = [part.seen[:, None].expand(-1, length, -1) for part in before]
        return cls(length, scale, kept, before, torch.cat([*parts, own.expand(batch, -1, -1)], dim=2)[:, None])

    def __call__(self, layer: int, heads: Heads) -> Tensor:
        """See `Attend`."""
        query, key, value = (x.unflatten(0, (-1, self.length)).transpose(1, 2) for x in (*heads.turned(), heads.value))
        if self.kept is not None:
            self.kept.append((key, value))
        if self.before:
            earlier = [part.of(layer) for part in self.before]
            key, value = (torch.cat([*old, new], dim=2) for *old, new in zip(*earlier, (key, value), strict=True))
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self.seen,
            is_causal=self.seen is None,
            scale=self.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class OneToken:
    """One token a slot, for the first n slots, at their `positions` [n]; its keys and values are written there."""

    slots: Slots
    positions: Tensor
    scale: float
    length: int
    """No position is this large."""

    def __call__(self, layer: int, heads: Heads) -> Tensor:
        """See `Attend`."""
        keys, values = self.slots.keys[layer], self.slots.values[layer]
        if keys.is_cuda:
            from distillkit_builtin.local.fast.decode_kernel import attend

            return attend(heads, keys, values, self.positions, self.scale)
        return attend_plainly(heads, keys, values, self.positions, self.scale, self.length)


def attend_plainly(new: Heads, keys: Tensor, values: Tensor, positions: Tensor, scale: float, length: int) -> Tensor:
    """What `decode_kernel.attend` computes, by PyTorch's own operations, up to `length`."""
    query, key = new.turned()
    count, heads, width = query.shape
    kv_heads = key.shape[1]
    rows = torch.arange(count, device=query.device)
    keys[rows, :, positions] = key
    values[rows, :, positions] = new.value
    seen = torch.arange(length, device=query.device) <= positions[:, None]
    # Query heads that share a key-value head stand where a sequence's tokens usually do: keys are read once for them.
    mixed = functional.scaled_dot_product_attention(
        query.unflatten(1, (kv_heads, -1)),
        keys[:count, :, :length],
        values[:count, :, :length],
        attn_mask=seen[:, None, None].expand(-1, -1, heads // kv_heads, -1),
        scale=scale,
    )
    return mixed.reshape(count, heads * width)
