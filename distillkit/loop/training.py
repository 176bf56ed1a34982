"""A window's completions to optimizer steps: split, looked at for numbers that are none, trained, measured."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.arrays import Array
from distillkit.errors import BadStepError, RunFailedError
from distillkit.loop.batch_maker import BatchMaker, WeighedBatch
from distillkit.loop.gradient_monitor import GradientMonitor
from distillkit.loop.outcomes import LostCompletion, Outcomes
from distillkit.loop.route_gradients import RouteGradients
from distillkit.metrics import mean_of
from distillkit.roles.attribution import attribute_to
from distillkit.roles.plugin import Plugin
from distillkit.roles.returned import awaited, require_returned
from distillkit.roles.student import Student
from distillkit.significant import significant
from distillkit.training_data import Batch, StepResult

MISMATCH = "rollout/logprob_mismatch"
OTHER_SAMPLER = (
    "the sampler's",
    "Does the sampler serve the student's own base model, in the same dtype, with the weights that were pushed?",
)
OWN_SAMPLER = (
    "the student's own sampling",
    "It trains and samples by itself, so no other server or base model is behind this. Is dropout asked for, which is "
    "on in training alone? Is it rounding (in bfloat16, most of all with experts, where a token may go to another one; "
    "computing in float32 shows it)? If it is neither, please report the model.",
)
"""Whose logprobs they are, and what may have made them differ."""


@dataclass(slots=True)
class MismatchMonitor:
    """Warns once past the threshold, and again only when it has doubled since."""

    threshold: float
    """Nats a token."""
    warn: Callable[[str], None]
    own_sampler: bool = False
    """Whether the student samples by itself."""

    def check(self, results: Sequence[StepResult]) -> dict[str, float]:
        """The step's mismatch: of its first optimizer step alone, since later ones compare with weights that moved."""
        if not results:
            return {}
        first = {name: value for name, value in results[0].metrics.items() if name.startswith(MISMATCH)}
        self._warn_past_threshold(first)
        return first

    def _warn_past_threshold(self, metrics: Mapping[str, float]) -> None:
        value = metrics.get(MISMATCH, 0.0)
        if value <= self.threshold:
            return
        self.threshold = 2 * value
        whose, causes = OWN_SAMPLER if self.own_sampler else OTHER_SAMPLER
        self.warn(
            f"{whose} logprobs are {significant(value)} nats a token from the trainer's ({MISMATCH}): advantages and "
            f"ratios are off by as much. {causes} With train.max_steps_off_policy or weight_sync_interval, part is the "
            "policy that moved"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The result of one step: how its completions ended, the batches that were trained, and metrics."""

    outcomes: Outcomes
    """The completions of refused optimizer steps are among the lost ones."""
    batches: Sequence[Batch]
    """The batches that were trained, one an optimizer step."""
    metrics: Mapping[str, float]


@dataclass(slots=True)
class WindowTrainer:
    """Trains a student. A step with a number that is not finite never reaches its weights."""

    student: Student
    maker: BatchMaker
    max_bad_steps: int
    mismatch: MismatchMonitor
    gradient: GradientMonitor
    warn: Callable[[str], None]
    gradients: RouteGradients
    bad_in_a_row: int = field(default=0)
    """Refused optimizer steps since the last good one."""
    _told: bool = field(default=False)
    """Whether it was said that a step trains nothing."""
    moved: bool = field(default=False)
    """Whether weights, or what a loss keeps as arrays, may be others than after the last step that was complete."""

    async def batches(self, outcomes: Outcomes) -> list[WeighedBatch]:
        """What was scored as the data of optimizer steps. Raises PluginError for what loss or weightings make wrong."""
        self.moved = type(self.maker.loss).tensors is not Plugin.tensors
        return await asyncio.to_thread(self.maker.batches, outcomes.scored)

    async def train(self, outcomes: Outcomes, batches: Sequence[WeighedBatch], step: int) -> Trained:
        """Train the `batches` of what was scored, as the run's step `step`, counted from 1.

        Raises:
            RunFailedError: after more than `max_bad_steps` refused optimizer steps in a row.
        """
        results: list[StepResult] = []
        trained: list[Batch] = []
        refused: list[LostCompletion] = []
        weights: list[WeighedBatch] = []
        measured: dict[str, float] = {}
        for place, weighed in enumerate(batches):
            before, batch = self.moved, weighed.batch
            self._tell_of_nothing(batch, step)
            try:
                with attribute_to(self.student, "in train()"):
                    require_finite(batch)
                    if place == 0:
                        measured = await self.gradients.measure(step, batch, outcomes.scored)
                    self.moved = True
                    result = await awaited(self.student, "train", self.student.train(batch))
                    require_returned(self.student, result, StepResult, "train()")
                    results.append(result)
            except BadStepError as error:
                self.moved = before
                refused += [LostCompletion(datum.key, "train", str(error), retryable=False) for datum in batch.datums]
                self._count(error)
            else:
                trained.append(batch)
                weights.append(weighed)
                self.bad_in_a_row = 0
        self.gradient.check(results, outcomes.scored)
        metrics = mean_of([*results, *(StepResult(weighed.metrics) for weighed in weights)])
        metrics |= measured | self.mismatch.check(results)
        if refused:
            metrics["train/refused_completions"] = float(len(refused))
        return Trained(outcomes.without(refused), trained, metrics)

    def _tell_of_nothing(self, batch: Batch, step: int) -> None:
        """Warn, once, of an optimizer step with no token of any weight."""
        if self._told or any(datum.inputs["weights"].any() for datum in batch.datums):
            return
        self._told = True
        self.warn(
            f"step {step} trains nothing: train.weightings, or masks, leave no token any weight, so that the student "
            "moves by the optimizer's momentum alone; said once, weights/kept_fraction says how often"
        )

    def _count(self, error: BadStepError) -> None:
        self.bad_in_a_row += 1
        if self.bad_in_a_row > self.max_bad_steps:
            raise RunFailedError(
                f"{self.bad_in_a_row} optimizer steps in a row were refused, more than train.max_bad_steps="
                f"{self.max_bad_steps} allows; the last: {error}"
            ) from error
        self.warn(f"an optimizer step was refused, the weights are as they were: {error}")


def require_finite(batch: Batch) -> None:
    """Raise BadStepError, naming row, completion and token, if the loss would read a number that is not finite."""
    for datum in batch.datums:
        for name, array in datum.inputs.items():
            if array.dtype.kind != "f" or np.count_nonzero(np.isfinite(array)) == array.size:
                continue
            raise BadStepError(f"{datum.key}: {name} of token {_first_bad(array)} is {_bad_value(array)}")


def _first_bad(array: Array) -> int:
    return int(np.argwhere(~np.isfinite(array))[0][0])


def _bad_value(array: Array) -> str:
    return str(array[~np.isfinite(array)].reshape(-1)[0])
