"""The loss of a micro-batch that reads distributions: head and loss a chunk of positions at a time.

The loss of a position depends on that position alone, so a chunk's gradient by its hidden states, and by the head where
that is trained, is computed at once, with the weights multiplied in, and nothing else is kept: [tokens, vocabulary]
never exists for a batch, and no head is computed twice (as in Liger's fused linear losses, arXiv:2410.10989).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from distillkit.training_data import Batch
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize, default_batch_size
from distillkit_builtin.local.model.causal_lm import CausalLM, ResponseStates
from distillkit_builtin.local.training.asked_teachers import (
    FindTeacher,
    RoutePositions,
    ask_teachers,
    no_teachers,
    whole_route,
)
from distillkit_builtin.local.training.counted_positions import CountedPositions
from distillkit_builtin.local.training.distributions import unknown_mass
from distillkit_builtin.local.training.micro_batch_loss import MicroBatchLoss, items_of, token_loss_in
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.positions import ChunkPositions
from distillkit_builtin.local.training.unknown_mass import UnknownMassMeter, summed

POSITIONS_ON_CUDA, POSITIONS = 512, 128
"""Positions of a chunk, unless the user sets another number."""
FEWEST = 16
"""Positions of a chunk below which it is the micro-batch that is too large."""


def chunk_size(positions: int | None, device: torch.device) -> AdaptiveBatchSize:
    """How many positions a chunk has; None: the device's default."""
    size = positions or default_batch_size(device, POSITIONS_ON_CUDA, POSITIONS)
    return AdaptiveBatchSize(size, "positions of head and loss", "student.loss_chunk_positions")


@dataclass(slots=True)
class ChunkedLoss:
    """How losses that read distributions are computed."""

    chunk: AdaptiveBatchSize
    """Positions."""
    known: int | None = None
    """The tokenizer's size, from which on ids get no probability; None: the heads'."""
    find_teacher: FindTeacher = no_teachers
    unknown: UnknownMassMeter = field(default_factory=UnknownMassMeter)

    def routes(self, part: Batch, counted: CountedPositions) -> list[RoutePositions]:
        """The micro-batch's positions by route, with what its teachers' heads read there; raises as `ask_teachers`."""
        if "full" not in part.reads:
            return whole_route(counted)
        return ask_teachers(part.datums, counted, self.find_teacher)

    def loss(
        self, policy: Policy, part: Batch, counted: CountedPositions, routes: Sequence[RoutePositions]
    ) -> MicroBatchLoss:
        """The loss of a micro-batch. Raises torch.OutOfMemoryError where even the smallest chunks are too large."""
        chunks = _Chunks(self, policy.causal_lm, part, counted)
        total = policy.with_response_states(
            items_of(part.datums), counted.index, lambda states: chunks.total(states, routes)
        )
        return MicroBatchLoss(total, chunks.losses, chunks.logprobs)


@dataclass(frozen=True, slots=True, eq=False)
class _Gradients:
    """Where the gradients of chunks are gathered."""

    hidden: Tensor
    """[n, hidden]: the hidden states, detached."""
    trained: tuple[Tensor, ...]
    """What is trained of the head."""
    by_hidden: Tensor
    by_trained: tuple[Tensor, ...]

    @classmethod
    def none(cls, hidden: Tensor, *trained: Tensor) -> "_Gradients":
        """Zeros."""
        return cls(hidden.detach(), trained, torch.zeros_like(hidden), tuple(map(torch.zeros_like, trained)))

    def add(self, at: Tensor, loss: Tensor, chunk: Tensor) -> None:
        """The gradient of a `loss` of the hidden states `chunk`, which stand `at` these positions; frees its graph."""
        by_chunk, *by_trained = torch.autograd.grad(loss, [chunk, *self.trained], allow_unused=True)
        self.by_hidden[at] = by_chunk
        for total, found in zip(self.by_trained, by_trained, strict=True):
            if found is not None:
                total.add_(found)  # nothing is allocated from the first of these on: a chunk counts once, or not at all


class _Chunks:
    """The chunks of one micro-batch."""

    def __init__(self, how: ChunkedLoss, causal_lm: CausalLM, part: Batch, counted: CountedPositions) -> None:
        self.how = how
        self.causal_lm = causal_lm
        self.token_loss = token_loss_in(part)
        self.options, self.reads = part.options, part.reads
        self.counted = counted
        self.losses, self.logprobs = (torch.empty_like(counted.weights) for _ in range(2))

    def total(self, states: ResponseStates, routes: Sequence[RoutePositions]) -> Tensor:
        """The sum of `weights * losses`, with gradient by the hidden states and by what is trained of the head."""

        def compute(gradients: _Gradients) -> Tensor:
            for route in routes:
                self._add_route(route, states.ids, gradients)
            return (self.losses * self.counted.weights).sum()

        total: Tensor = _Computed.apply(compute, states.hidden, *self.causal_lm.trained_head)  # type: ignore[no-untyped-call]
        return total

    def _add_route(self, route: RoutePositions, ids: Tensor, gradients: _Gradients) -> None:
        """Compute a route's chunks; from where the device runs out of memory on, smaller ones."""
        start, chunk = 0, self.how.chunk
        while start < len(route.positions):
            self.causal_lm.device.raise_if_cancelled()
            end = start + chunk.size
            try:
                self._add(route, slice(start, end), ids, gradients)
            except torch.OutOfMemoryError as error:
                if chunk.size <= FEWEST:
                    raise
                chunk.shrink(error, FEWEST)
                continue
            start = end

    def _add(self, route: RoutePositions, part: slice, ids: Tensor, gradients: _Gradients) -> None:
        at = route.positions[part]
        with torch.enable_grad():
            hidden = gradients.hidden[at].requires_grad_()
            logits = self.causal_lm.head(hidden)
            with torch.autocast(logits.device.type, enabled=False):  # what comes behind the head is float32
                positions, teachers_unknown = self._positions(route, part, logits, ids[at])
                losses = self.token_loss(positions, self.options)
                loss = (losses * self.counted.weights[at]).sum()
        self.losses[at], self.logprobs[at] = losses.detach(), positions.sampled.detach()
        student, student_unknown = positions.student_logprobs(), None
        if student is not None and positions.known < logits.shape[1]:
            student_unknown = unknown_mass(logits, student, positions.ids)
        unknown = summed(student_unknown), summed(teachers_unknown)  # before: a chunk that counts is not computed again
        gradients.add(at, loss, hidden)
        self.how.unknown.add(*unknown)

    def _positions(
        self, route: RoutePositions, part: slice, logits: Tensor, ids: Tensor
    ) -> tuple[ChunkPositions, Tensor | None]:
        """What the loss sees at a part of a route, and the unknown mass [n] of its teachers."""
        asked = route.logits(part)
        known = min([logits.shape[1], *(each.shape[1] for each in asked), self.how.known or logits.shape[1]])
        teacher, unknown = route.mixture(asked, known, ids)
        at = route.positions[part]
        inputs = {name: values[at] for name, values in self.counted.inputs.items()}
        sampling = self.counted.sampling_logprobs[at]
        return ChunkPositions(logits, known, ids, sampling, inputs, teacher, self.reads), unknown


class _Computed(torch.autograd.Function):
    """A loss whose gradients are there with its value; the backward pass hands them on."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        compute: Callable[[_Gradients], Tensor],
        hidden: Tensor,
        *trained: Tensor,
    ) -> Tensor:
        gradients = _Gradients.none(hidden, *trained)
        total = compute(gradients)
        ctx.save_for_backward(gradients.by_hidden, *gradients.by_trained)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's context
        by_hidden, *by_trained = (found.mul_(gradient) for found in ctx.saved_tensors)
        return None, by_hidden, *by_trained
