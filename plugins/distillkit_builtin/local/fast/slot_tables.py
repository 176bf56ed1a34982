"""What is wanted of the sampled tokens' distributions, kept in every slot on the device beside `DecodeState`."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit_builtin.local.fast.decode_state import DecodeState
from distillkit_builtin.local.sampling.token_tables import sampled_tables

WantedKey = tuple[tuple[str, int], ...]
"""What is wanted, as a key; empty for the sampled tokens alone."""


def wanted_key(wanted: Mapping[str, int]) -> WantedKey:
    """The key of a request's `wanted`."""
    return tuple(sorted(wanted.items()))


@dataclass(frozen=True, slots=True)
class SlotTables:
    """Buffers that stay where they are, so that CUDA graphs can write into them."""

    wanted: Mapping[str, int]
    buffers: Mapping[str, Tensor]
    """[slots, capacity, ...] by the names of `Rollout.arrays`."""

    @classmethod
    def empty(cls, wanted: Mapping[str, int], state: DecodeState) -> "SlotTables":
        """For as many slots and tokens as the state has."""
        of_a_token = sampled_tables(
            torch.zeros(1, 1, device=state.token.device), wanted
        )  # has the right shapes and types
        shape = state.ids.shape
        return cls(wanted, {name: value.new_zeros(*shape, *value.shape[1:]) for name, value in of_a_token.items()})

    def append(self, slots: Tensor, state: DecodeState, logprobs: Tensor) -> None:
        """Keep what is wanted of the tokens that `state` is about to append in `slots` [n].

        `logprobs` [n, vocabulary] have no rows without a token. Where a completion has ended, nothing changes.
        """
        active = ~state.ended[slots]
        column = state.sampled[slots].clamp(max=state.capacity - 1)
        for name, values in sampled_tables(logprobs, self.wanted).items():
            buffer = self.buffers[name]
            shown = active.view(-1, *[1] * (values.ndim - 1))
            buffer[slots, column] = torch.where(shown, values, buffer[slots, column])

    def move(self, sources: Tensor, targets: Tensor) -> None:
        """Move what is kept of completions from slots `sources` to `targets`."""
        for buffer in self.buffers.values():
            buffer[targets] = buffer[sources]
