"""A step's scored completions to the data of its optimizer steps: the loss's inputs, and the engine's weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, pairwise

import numpy as np

from distillkit.arrays import Array, BoolArray, FloatArray
from distillkit.config.train_config import Normalization
from distillkit.errors import PluginError
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.loop.token_weights import StepWeights, step_weights
from distillkit.records import ScoredRollout
from distillkit.roles.attribution import attribute_to, named
from distillkit.roles.loss import Loss, read_by
from distillkit.roles.returned import require_returned, require_yielded
from distillkit.roles.weighting import Weighting
from distillkit.training_data import Batch, Datum, TeacherPrompt

ENGINE_INPUTS = ("sampling_logprobs", "weights")
"""Inputs that the engine gives every datum."""


@dataclass(frozen=True, slots=True, eq=False)
class WeighedBatch:
    """The data of one optimizer step, complete."""

    batch: Batch
    metrics: Mapping[str, float]
    """What the weightings left (`weights/...`)."""


@dataclass(frozen=True, slots=True)
class BatchMaker:
    """Makes the batches of a run."""

    loss: Loss
    taken: frozenset[str] | None = None
    """The options that a service's loss function takes; None: the student runs the loss's own code."""
    substeps: int = 1
    """Optimizer steps a step, at most."""
    normalization: Normalization = "token_mean"
    weightings: Sequence[Weighting] = field(default=())

    def batches(self, scored: Sequence[ScoredRollout]) -> list[WeighedBatch]:
        """The step's data as optimizer steps: `train.num_substeps`, or as many as there are rows; none without data.

        Completions of one row are never divided, and rows are spread as evenly as they can be.
        """
        groups = [list(group) for _, group in groupby(scored, lambda scored: (scored.key.row_id, scored.key.epoch))]
        parts = min(self.substeps, len(groups))
        cuts = [len(groups) * part // parts for part in range(parts + 1)] if parts else []
        return [self.batch([*chain.from_iterable(groups[a:b])]) for a, b in pairwise(cuts)]

    def batch(self, scored: Sequence[ScoredRollout]) -> WeighedBatch:
        """The data of one optimizer step. Raises PluginError for what loss or weightings make wrong."""
        with attribute_to(self.loss, "in batch()"):
            made = self.loss.batch(scored)
        require_returned(self.loss, made, Batch, "batch()")
        for datum in made.datums:
            require_yielded(self.loss, datum, Datum, "batch()")
        if [datum.key for datum in made.datums] != [completion.key for completion in scored]:
            raise PluginError(f"{named(self.loss)}: batch() gave other data than one datum a completion, in order")
        weights = step_weights(scored, self.normalization, self.weightings)
        options = self.loss.options() if self.taken is None else self.loss.options_for(self.taken)
        return WeighedBatch(
            replace(
                made,
                options=options,
                datums=self._datums(made, scored, weights),
                token_loss=token_loss_of(self.loss),
                reads=read_by(self.loss),
            ),
            weights.metrics,
        )

    def _datums(self, made: Batch, scored: Sequence[ScoredRollout], weights: StepWeights) -> tuple[Datum, ...]:
        """The loss's datums with what the engine gives every one."""
        taken = sorted({name for datum in made.datums for name in ENGINE_INPUTS if name in datum.inputs})
        if taken:
            raise PluginError(
                f"{named(self.loss)}: gives a datum {' and '.join(taken)}, which the engine does (weights are "
                "train.normalization and train.weightings)"
            )
        asks_again = "full" in self.loss.needs()
        return tuple(
            replace(
                datum,
                inputs=_complete(datum, completion, mine),
                teachers=_teachers(completion) if asks_again else datum.teachers,
            )
            for datum, completion, mine in zip(made.datums, scored, weights.arrays, strict=True)
        )


def _complete(datum: Datum, completion: ScoredRollout, weights: FloatArray) -> dict[str, Array]:
    """The loss's inputs and the engine's; numbers behind a mask are 0, whatever the loss made of them."""
    rollout = completion.rollout
    inputs = {**datum.inputs, "sampling_logprobs": rollout.logprobs}
    if rollout.mask is not None:
        inputs = {name: _zero_behind(rollout.mask, array) for name, array in inputs.items()}
    return {**inputs, "weights": weights}


def _zero_behind(mask: BoolArray, array: Array) -> Array:
    kept = mask.reshape(-1, *[1] * (array.ndim - 1))
    return np.where(kept, array, array.dtype.type(0))


def _teachers(completion: ScoredRollout) -> dict[str, TeacherPrompt]:
    """What the row's teachers read, for a student that asks them again."""
    prompts = completion.prompts.teachers
    return {name: TeacherPrompt(prompts[name], share) for name, share in completion.mixture.items()}
