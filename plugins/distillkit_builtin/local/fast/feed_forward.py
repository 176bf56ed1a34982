"""The feed-forward part of a decoder layer: one gated layer, or a mixture of such experts."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from distillkit_builtin.local.fast.few_rows import gate_tiles
from distillkit_builtin.local.fast.projection import Projection
from distillkit_builtin.local.model.fused_ops import gated, joined, weighted_sum


class FeedForward(Protocol):
    """What follows attention in a layer."""

    def __call__(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, hidden] of n tokens to what is added to them.

        That is [n, hidden] too, or float32 parts of it [splits, n, hidden].
        """
        ...


@dataclass(frozen=True, slots=True)
class GatedLayer:
    """`down(activation(gate(x)) * up(x))`."""

    gate_up: Projection
    """[2 width, hidden], the gate first."""
    down: Projection
    """[hidden, width]"""
    activation: str

    def __call__(self, hidden: Tensor) -> Tensor:
        """As `FeedForward` says."""
        return self.down.parts(self._gated(hidden))

    def _gated(self, hidden: Tensor) -> Tensor:
        tiles = gate_tiles(hidden, self.gate_up.weight) if self.gate_up.is_product else None
        if tiles is None:
            return gated(self.gate_up(hidden), self.activation)
        from distillkit_builtin.local.fast.few_rows_kernel import gated_product

        return gated_product(hidden, self.gate_up.weight, tiles, self.activation)


@dataclass(frozen=True, slots=True)
class SharedExpert:
    """An expert that every token goes through, weighted by a sigmoid of its own."""

    expert: GatedLayer
    gate: Tensor
    """[1, hidden]"""

    def __call__(self, hidden: Tensor) -> Tensor:
        """As `FeedForward` says."""
        return torch.sigmoid(functional.linear(hidden, self.gate)) * joined(self.expert(hidden), hidden.dtype)


@dataclass(frozen=True, slots=True)
class Experts:
    """The `top_k` experts of each token that its router gives the most weight (https://arxiv.org/abs/2101.03961).

    Tokens are sorted by expert, and one product of groups multiplies each expert's: the host knows no group's size, so
    that a step can be captured in a graph, and each weight is read once.
    """

    router: Tensor
    """[experts, hidden]"""
    gate_up: Tensor
    """[experts, 2 width, hidden], the gates first."""
    down: Tensor
    """[experts, hidden, width]"""
    top_k: int
    normalized: bool
    """Whether the weights of a token's experts add up to 1; else they are their shares among all experts."""
    activation: str
    shared: SharedExpert | None

    def __call__(self, hidden: Tensor) -> Tensor:
        """As `FeedForward` says."""
        weights, chosen = self.route(hidden)
        expert, order = chosen.flatten().sort(stable=True)
        experts = torch.arange(len(self.router), device=hidden.device)
        # How many pairs of token and expert there are up to each expert, that one counted in.
        ends = torch.searchsorted(expert, experts, right=True, out_int32=True)
        wide = functional.grouped_mm(hidden[order // self.top_k], self.gate_up.transpose(1, 2), offs=ends)
        rows = functional.grouped_mm(gated(wide, self.activation), self.down.transpose(1, 2), offs=ends)
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order), device=order.device)
        mixed = weighted_sum(rows, places.view_as(chosen), weights)
        return mixed if self.shared is None else mixed + self.shared(hidden)

    def route(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 weights [n, top_k] of each token's experts, and which they are."""
        shares = torch.softmax(functional.linear(hidden, self.router), dim=1, dtype=torch.float32)
        weights, chosen = torch.topk(shares, self.top_k, dim=1)
        return weights / weights.sum(1, keepdim=True) if self.normalized else weights, chosen
