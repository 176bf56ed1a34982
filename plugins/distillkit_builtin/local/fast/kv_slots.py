"""Room for the keys and values of a number of completions at a time; each keeps its slot until it ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Slots:
    """What every slot holds of its prompt and completion so far, a layer at a time."""

    keys: tuple[Tensor, ...]
    """[slots, kv_heads, length, d] each."""
    values: tuple[Tensor, ...]

    @classmethod
    def empty(cls, layers: int, shape: tuple[int, int, int, int], like: Tensor) -> "Slots":
        """`shape` is [slots, kv_heads, length, d]; device and dtype are `like`'s."""

        def room() -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape, device=like.device, dtype=like.dtype) for _ in range(layers))

        return cls(room(), room())

    @property
    def count(self) -> int:
        """Slots."""
        return len(self.keys[0])

    @property
    def length(self) -> int:
        """Tokens of a slot."""
        return self.keys[0].shape[2]

    def fill(self, places: Tensor, rows: Tensor, kept: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Put row `rows[i]` of what was `kept` of prompts [batch, kv_heads, length, d] into slot `places[i]`."""
        for (key, value), keys, values in zip(kept, self.keys, self.values, strict=True):
            keys[places, :, : key.shape[2]] = key[rows]
            values[places, :, : value.shape[2]] = value[rows]

    def move(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Copy the first `length` tokens of slots to others."""
        for held in (*self.keys, *self.values):
            held[targets, :, :length] = held[sources, :, :length]
