"""A step's scored completions to the data of its optimizer steps: the loss's inputs, and the engine's weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby, pairwise

import numpy as np

from distillkit.arrays import Array, BoolArray, FloatArray
from distillkit.config.train_config import Normalization
from distillkit.errors import PluginError
from distillkit.frozen import FrozenDict
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.loop.token_weights import step_weights
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
        weights = step_weights(scored, self.normalization, self.weightings)
        make = self._of_inputs if type(self.loss).batch is Loss.batch else self._of_batch
        made = make(scored, weights.arrays)
        options = self.loss.options() if self.taken is None else self.loss.options_for(self.taken)
        whole = replace(made, options=options, token_loss=token_loss_of(self.loss), reads=read_by(self.loss))
        return WeighedBatch(whole, weights.metrics)

    def _of_inputs(self, scored: Sequence[ScoredRollout], weights: Sequence[FloatArray]) -> Batch:
        """What `Loss.batch` makes, for a loss that has that one, but each datum complete when it is made."""
        datums, asks_again = [], self._asks_again()
        with attribute_to(self.loss, "in inputs()"):
            for completion, mine in zip(scored, weights, strict=True):
                rollout, inputs = completion.rollout, self._with_engines(self.loss.inputs(completion), completion, mine)
                teachers = _teachers(completion) if asks_again else FrozenDict[str, TeacherPrompt]()
                datum = Datum(rollout.key, rollout.request.prompt_ids, rollout.token_ids, inputs, teachers)
                datums.append(_without_hidden(datum, rollout.mask))
        return Batch(self.loss.loss_function, {}, tuple(datums))

    def _of_batch(self, scored: Sequence[ScoredRollout], weights: Sequence[FloatArray]) -> Batch:
        """The data of a loss with a `batch` of its own, which the engine completes."""
        with attribute_to(self.loss, "in batch()"):
            made = self.loss.batch(scored)
        require_returned(self.loss, made, Batch, "batch()")
        for datum in made.datums:
            require_yielded(self.loss, datum, Datum, "batch()")
        if [datum.key for datum in made.datums] != [completion.key for completion in scored]:
            raise PluginError(f"{named(self.loss)}: batch() gave other data than one datum a completion, in order")
        datums, asks_again = [], self._asks_again()
        for datum, completion, mine in zip(made.datums, scored, weights, strict=True):
            inputs = self._with_engines(datum.inputs, completion, mine)
            teachers = _teachers(completion) if asks_again else datum.teachers
            datums.append(_without_hidden(replace(datum, inputs=inputs, teachers=teachers), completion.rollout.mask))
        return replace(made, datums=tuple(datums))

    def _asks_again(self) -> bool:
        """Whether the student asks teachers again, for their distributions."""
        return "full" in self.loss.needs()

    def _with_engines(
        self, inputs: Mapping[str, Array], completion: ScoredRollout, weights: FloatArray
    ) -> dict[str, Array]:
        """The loss's inputs and the engine's. Raises PluginError for a loss that gives those itself."""
        taken = [name for name in ENGINE_INPUTS if name in inputs]
        if taken:
            raise PluginError(
                f"{named(self.loss)}: gives a datum {' and '.join(taken)}, which the engine does (weights are "
                "train.normalization and train.weightings)"
            )
        return {**inputs, "sampling_logprobs": completion.rollout.logprobs, "weights": weights}


def _without_hidden(datum: Datum, mask: BoolArray | None) -> Datum:
    """The datum with 0 behind `mask`, whatever the loss made of what stands there: its lengths are right by now."""
    if mask is None:
        return datum
    return replace(datum, inputs={name: _zero_behind(mask, array) for name, array in datum.inputs.items()})


def _zero_behind(mask: BoolArray, array: Array) -> Array:
    kept = mask.reshape(-1, *[1] * (array.ndim - 1))
    return np.where(kept, array, array.dtype.type(0))


def _teachers(completion: ScoredRollout) -> dict[str, TeacherPrompt]:
    """What the row's teachers read, for a student that asks them again."""
    prompts = completion.prompts.teachers
    return {name: TeacherPrompt(prompts[name], share) for name, share in completion.mixture.items()}
