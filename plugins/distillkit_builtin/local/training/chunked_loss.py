"""The loss of a micro-batch, head and loss a chunk of positions at a time.

The loss of a position depends on that position alone, so a chunk's gradient is computed at once (`head_gradients.py`),
and nothing else is kept: [tokens, vocabulary] never exists for a batch. A loss that reads the sampled tokens' logprobs
alone is computed so where the head is trained; where it is frozen, `micro_batch_loss.sampled_loss` does with less.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

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
from distillkit_builtin.local.training.head_gradients import HeadGradients, with_gradients
from distillkit_builtin.local.training.micro_batch_loss import (
    MicroBatchLoss,
    items_of,
    reads_logprobs_alone,
    token_loss_in,
)
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.positions import ChunkPositions
from distillkit_builtin.local.training.unknown_mass import UnknownMassMeter, summed

POSITIONS_ON_CUDA, POSITIONS = 512, 128
"""Positions of a chunk, unless the user sets another number."""
SAMPLED_TIMES = 4
"""How many times as many are of a loss that reads no distribution: no more than its logits and their gradient exist."""
FEWEST = 16
"""Positions of a chunk below which it is the micro-batch that is too large."""


def positions_at_once(chunk: int, reads: AbstractSet[str]) -> int:
    """How many positions of a loss that `reads` this are computed at once, where a chunk has so many."""
    return chunk * (SAMPLED_TIMES if reads_logprobs_alone(reads) else 1)


def chunk_size(positions: int | None, device: torch.device) -> AdaptiveBatchSize:
    """How many positions a chunk has; None: the device's default."""
    size = positions or default_batch_size(device, POSITIONS_ON_CUDA, POSITIONS)
    return AdaptiveBatchSize(size, "positions of head and loss", "student.loss_chunk_positions")


@dataclass(slots=True)
class ChunkedLoss:
    """How losses are computed in chunks."""

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

        def compute(gradients: HeadGradients) -> Tensor:
            for route in routes:
                self._add_route(route, states.ids, gradients)
            return (self.losses * self.counted.weights).sum()

        return with_gradients(compute, states.hidden, self.causal_lm.trained_head)

    def _add_route(self, route: RoutePositions, ids: Tensor, gradients: HeadGradients) -> None:
        """Compute a route's chunks; from where the device runs out of memory on, smaller ones."""
        start, chunk = 0, self.how.chunk
        while start < len(route.positions):
            self.causal_lm.device.raise_if_cancelled()
            end = start + positions_at_once(chunk.size, self.reads)
            try:
                self._add(route, slice(start, end), ids, gradients)
            except torch.OutOfMemoryError as error:
                if chunk.size <= FEWEST:
                    raise
                chunk.shrink(error, FEWEST)
                continue
            start = end

    def _add(self, route: RoutePositions, part: slice, ids: Tensor, gradients: HeadGradients) -> None:
        at = route.positions[part]
        with torch.enable_grad():
            hidden = gradients.hidden[at].requires_grad_()
            logits = self.causal_lm.head(hidden)
            with torch.autocast(logits.device.type, enabled=False):  # what comes behind the head is float32
                positions, teachers_unknown = self._positions(route, part, logits, ids[at])
                losses = self.token_loss(positions, self.options)
                loss = (losses * self.counted.weights[at]).sum()
        self.losses[at], self.logprobs[at] = losses.detach().to(self.losses.dtype), positions.sampled.detach()
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
