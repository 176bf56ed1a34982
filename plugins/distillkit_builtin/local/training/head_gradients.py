"""Gradients of what a head gives that are computed with it, so that no head is computed twice.

The loss of each position by itself has its gradient while the position's logits are there: by its hidden state, and by
the head where that is trained, with the position's weight multiplied in. The backward pass hands them on (as in Liger's
fused linear losses, arXiv:2410.10989).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class HeadGradients:
    """Where the gradients of chunks are gathered."""

    hidden: Tensor
    """[n, hidden]: the hidden states, detached."""
    trained: tuple[Tensor, ...]
    """What is trained of the head."""
    by_hidden: Tensor
    by_trained: tuple[Tensor, ...]

    @classmethod
    def none(cls, hidden: Tensor, *trained: Tensor) -> "HeadGradients":
        """Zeros."""
        return cls(hidden.detach(), trained, torch.zeros_like(hidden), tuple(map(torch.zeros_like, trained)))

    def add(self, at: Tensor, loss: Tensor, chunk: Tensor) -> None:
        """The gradient of a `loss` of the hidden states `chunk`, which stand `at` these positions; frees its graph."""
        by_chunk, *by_trained = torch.autograd.grad(loss, [chunk, *self.trained], allow_unused=True)
        self.by_hidden[at] = by_chunk
        for total, found in zip(self.by_trained, by_trained, strict=True):
            if found is not None:
                total.add_(found)  # nothing is allocated from the first of these on: a chunk counts once, or not at all


def with_gradients(
    compute: Callable[[HeadGradients], Tensor], hidden: Tensor, trained: tuple[torch.nn.Parameter, ...]
) -> Tensor:
    """What `compute` gives, a sum [] of losses, with the gradients that it gathers.

    They are by the hidden states [n, hidden], and by what is trained of the head.
    """
    total: Tensor = _Computed.apply(compute, hidden, *trained)  # type: ignore[no-untyped-call]
    return total


class _Computed(torch.autograd.Function):
    """A loss whose gradients are there with its value; the backward pass hands them on."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        compute: Callable[[HeadGradients], Tensor],
        hidden: Tensor,
        *trained: Tensor,
    ) -> Tensor:
        gradients = HeadGradients.none(hidden, *trained)
        total = compute(gradients)
        ctx.save_for_backward(gradients.by_hidden, *gradients.by_trained)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's context
        by_hidden, *by_trained = (found.mul_(gradient) for found in ctx.saved_tensors)
        return None, by_hidden, *by_trained
