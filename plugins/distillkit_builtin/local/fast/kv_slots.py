"""Memory for the keys and values of a number of completions at a time; each keeps its slot until it ends."""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGE = 4 * 2**30
"""Bytes of slots that are worth giving up while nothing is sampled, where that costs little."""


@dataclass(frozen=True, slots=True)
class KVSlots:
    """Keys and values of every slot's prompt and completion so far, a layer at a time."""

    keys: tuple[Tensor, ...]
    """[slots, kv_heads, length, d] each."""
    values: tuple[Tensor, ...]

    @classmethod
    def empty(cls, layers: int, shape: tuple[int, int, int, int], like: Tensor) -> "KVSlots":
        """`shape` is [slots, kv_heads, length, d]; device and dtype are `like`'s."""

        def allocate() -> tuple[Tensor, ...]:
            return tuple(torch.zeros(shape, device=like.device, dtype=like.dtype) for _ in range(layers))

        return cls(allocate(), allocate())

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self.keys[0])

    @property
    def length(self) -> int:
        """How many tokens a slot holds at most."""
        return self.keys[0].shape[2]

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def fill(self, slots: Tensor, rows: Tensor, layer: int, key: Tensor, value: Tensor) -> None:
        """Put row `rows[i]` of a layer's keys and values [batch, kv_heads, length, d] into slot `slots[i]`."""
        self.keys[layer][slots, :, : key.shape[2]] = key[rows]
        self.values[layer][slots, :, : value.shape[2]] = value[rows]

    def move(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Copy the first `length` tokens of slots to others."""
        for whole in (*self.keys, *self.values):
            whole[targets, :, :length] = whole[sources, :, :length]


def power_of_two(count: int, largest: int) -> int:
    """The least power of two that is not below `count`, or `largest`: few sizes, so that few graphs are captured."""
    return min(largest, 1 << (count - 1).bit_length())
