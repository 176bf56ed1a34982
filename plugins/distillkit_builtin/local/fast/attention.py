"""Attention in the fast trunk: over whole prompts, and of one new token a slot over what its slot holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from distillkit_builtin.local.fast.slots import Slots


@dataclass(frozen=True, slots=True)
class Causal:
    """Sequences of one length, end to end: `n = batch * length`."""

    length: int
    scale: float
    kept: list[tuple[Tensor, Tensor]] | None = None
    """Where to put their keys and values [batch, kv_heads, length, d], a layer at a time."""
    before: Sequence[tuple[Tensor, Tensor]] = ()
    """For each layer the keys and values [1, kv_heads, earlier, d] of what stands before all of them."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        query, key, value = (x.unflatten(0, (-1, self.length)).transpose(1, 2) for x in (query, key, value))
        if self.kept is not None:
            self.kept.append((key, value))
        seen = None
        if self.before:
            earlier = self.before[layer][0].shape[2]
            key, value = (
                torch.cat([old.expand(len(new), -1, -1, -1), new], dim=2)
                for old, new in zip(self.before[layer], (key, value), strict=True)
            )
            seen = torch.ones(self.length, earlier + self.length, dtype=torch.bool, device=query.device).tril(earlier)
        mixed = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=seen,
            is_causal=seen is None,
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

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        keys, values = self.slots.keys[layer], self.slots.values[layer]
        if query.is_cuda:
            from distillkit_builtin.local.fast.decode_kernel import attend

            return attend(query, key, value, keys, values, self.positions, self.scale)
        return attend_plainly(query, key, value, keys, values, self.positions, self.scale, self.length)


def attend_plainly(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    scale: float,
    length: int,
) -> Tensor:
    """What `decode_kernel.attend` computes, by PyTorch's own operations, up to `length`."""
    count = len(query)
    rows = torch.arange(count, device=query.device)
    keys[rows, :, positions] = key
    values[rows, :, positions] = value
    seen = torch.arange(length, device=query.device) <= positions[:, None]
    mixed = functional.scaled_dot_product_attention(
        query[:, :, None],
        keys[:count, :, :length],
        values[:count, :, :length],
        attn_mask=seen[:, None, None],
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return mixed.flatten(1)
