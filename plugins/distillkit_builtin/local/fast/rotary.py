"""Rotary embeddings: cosines and sines of every position, for each kind of layer that has its own."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from distillkit_builtin.local.fast.supported_models import rotary_kinds


@dataclass(frozen=True, slots=True)
class RotaryAngles:
    """Of n positions, as `fused_ops.normed_and_rotated` takes them."""

    cos: Tensor
    """[kinds, n, d] float32, as `sin`."""
    sin: Tensor
    """Its first half is negated."""

    @classmethod
    def of(cls, rotary: nn.Module, config: PreTrainedConfig, length: int, device: torch.device) -> "RotaryAngles":
        """Of positions 0 .. length - 1, by a model's own module; the kinds are in the order of `rotary_kinds`."""
        positions, nothing = torch.arange(length, device=device)[None], torch.empty(0, device=device)
        kinds = rotary_kinds(config)
        both = [rotary(nothing, positions) if kind is None else rotary(nothing, positions, kind) for kind in kinds]
        cos, sin = (torch.stack([each[part][0].float() for each in both]) for part in (0, 1))
        first, second = sin.chunk(2, dim=-1)
        return cls(cos, torch.cat([-first, second], dim=-1))

    def __len__(self) -> int:
        """How many positions there are."""
        return self.cos.shape[1]

    def at(self, positions: Tensor) -> "RotaryAngles":
        """Of `positions` [n]."""
        return RotaryAngles(self.cos.index_select(1, positions), self.sin.index_select(1, positions))
