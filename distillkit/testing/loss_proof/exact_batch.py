"""The loss of every position of every completion, and its exact expected gradient, in float64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from distillkit.arrays import Array
from distillkit.loop.batch_maker import BatchMaker
from distillkit.records import ScoredRollout
from distillkit.roles.loss import Loss
from distillkit.roles.weighting import Weighting
from distillkit.testing.loss_proof.enumeration import Masks, every_completion, prefixes_of
from distillkit.testing.loss_proof.made_up_loss import inputs_of
from distillkit.testing.loss_proof.table_positions import TablePositions
from distillkit.testing.loss_proof.tables import Policies
from distillkit.training_data import Batch

CANCELS = 1e-4
"""Of the length of the gradients that make an expected one: less has cancelled."""
ROUNDING = (1e-6, 1e-12)
"""Of the loss's size, since records and losses compute inputs in float32; and at least, of float64."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a loss makes of a batch."""

    losses: Tensor
    """[n] of each position."""
    gradients: Tensor
    """[n, V] by each position's logits, times how often its completion is sampled and what its token weighs."""
    prefixes: Tensor
    """[n]."""
    reach: Tensor
    """[n] how often each position's completion is sampled."""
    table: tuple[int, int]
    """The shape of the student's table."""

    @cached_property
    def expected(self) -> Tensor:
        """[1 + V, V] the expected gradient by the student's table."""
        return torch.zeros(self.table, dtype=torch.float64).index_add(0, self.prefixes, self.gradients)

    @property
    def norm(self) -> float:
        """Of the expected gradient."""
        return float(self.expected.norm())

    @property
    def scale(self) -> float:
        """The expected length of a completion's gradients, token by token: what they would make if none cancelled."""
        return float(self.gradients.norm(dim=1).sum())

    @property
    def size(self) -> float:
        """The expected sum of a completion's losses without their signs."""
        return float((self.losses.abs() * self.reach).sum())

    @property
    def rounding(self) -> float:
        """How long a gradient may be that is none."""
        of_loss, least = ROUNDING
        return max(of_loss * self.size, least)

    @property
    def nothing(self) -> float:
        """How long an expected gradient may be that is none."""
        return max(CANCELS * self.scale, self.rounding)


@dataclass(frozen=True, eq=False)
class ExactBatch:
    """The positions of every completion that count, laid end to end, from the batch that a student would get."""

    batch: Batch
    policies: Policies
    ids: Tensor
    """[n] the sampled ones."""
    prefixes: Tensor
    """[n] as tables number them."""
    last: Tensor
    """[n] whether it is its completion's last position."""
    reach: Tensor
    """[n] how often its completion is sampled."""
    inputs: Mapping[str, Tensor]
    """[n, ...] the loss's own and the engine's."""

    @classmethod
    def of(
        cls, loss: Loss, policies: Policies, masks: Masks | None = None, weightings: Sequence[Weighting] = ()
    ) -> "ExactBatch":
        """Raises PluginError for a loss that makes no batch that could be trained."""
        scored = every_completion(loss, policies, masks)
        with np.errstate(invalid="ignore" if masks else None):  # what stands behind a mask may be no number
            batch = BatchMaker(loss, normalization="sum", weightings=weightings).batch(scored).batch
        inputs = {name: _laid(arrays) for name, arrays in inputs_of(batch).items()}
        counted = inputs["weights"] != 0
        of_position = {
            "ids": _laid([datum.response_ids for datum in batch.datums]),
            "prefixes": _laid([np.array(prefixes_of(datum.response_ids)) for datum in batch.datums]),
            "last": _laid([np.arange(len(datum.response_ids))[::-1] == 0 for datum in batch.datums]),
            "reach": _laid([_reach(policies.sampling, completion) for completion in scored]),
        }
        kept = {name: values[counted] for name, values in of_position.items()}
        return cls(batch, policies, **kept, inputs={name: values[counted] for name, values in inputs.items()})

    def run(self, parts: Sequence[Tensor] | None = None) -> Outcome:
        """The loss of all positions in one call, or of `parts` of them (their indices) in a call each."""
        count, vocabulary = len(self.ids), self.policies.vocabulary
        losses = torch.zeros(count, dtype=torch.float64)
        gradients = torch.zeros(count, vocabulary, dtype=torch.float64)
        for part in parts or [torch.arange(count)]:
            losses[part], gradients[part] = self._part(part)
        return Outcome(losses, gradients, self.prefixes, self.reach, (1 + vocabulary, vocabulary))

    def _part(self, part: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.tensor(self.policies.student)[self.prefixes[part]].requires_grad_()
        inputs = {name: values[part] for name, values in self.inputs.items()}
        weights, sampling = inputs.pop("weights"), inputs.pop("sampling_logprobs")
        reads = self.batch.reads
        teacher = torch.tensor(self.policies.mixture)[self.prefixes[part]] if "full" in reads else None
        positions = TablePositions(logits, self.ids[part], sampling, inputs, teacher, reads)
        if self.batch.token_loss is None:
            raise AssertionError("a loss without a function of its own is not looked at")
        losses = self.batch.token_loss(positions, self.batch.options)
        (gradient,) = torch.autograd.grad((losses * weights * self.reach[part]).sum(), logits, allow_unused=True)
        return losses.detach().double(), torch.zeros_like(logits) if gradient is None else gradient


def _laid(arrays: Sequence[Array]) -> Tensor:
    """Arrays end to end, fractions in float64."""
    laid = torch.tensor(np.concatenate(arrays))
    return laid.double() if laid.is_floating_point() else laid


def _reach(sampling: Array, completion: ScoredRollout) -> Array:
    """[R] how often the completion is sampled, at each of its tokens."""
    ids = completion.rollout.token_ids
    return np.full(len(ids), sampling[prefixes_of(ids), ids].prod())
