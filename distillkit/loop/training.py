"""A window's completions to optimizer steps: split, looked at for numbers that are none, trained, measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from distillkit.arrays import Array
from distillkit.errors import BadStepError, RunFailedError
from distillkit.loop.mismatch import MismatchWatch
from distillkit.loop.window import Lost, Outcomes
from distillkit.metrics import mean_of
from distillkit.records import Batch, ScoredRollout, StepResult
from distillkit.roles.attribution import attribute_to
from distillkit.roles.loss import Loss
from distillkit.roles.student import Student


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What one step did."""

    outcomes: Outcomes
    """The completions of refused optimizer steps are among the lost ones."""
    batches: Sequence[Batch]
    """Those that were trained."""
    metrics: Mapping[str, float]


@dataclass(slots=True)
class Learning:
    """Trains a student. A step with a number that is not finite never reaches its weights."""

    student: Student
    loss: Loss
    substeps: int
    """Optimizer steps a window."""
    max_bad_steps: int
    mismatch: MismatchWatch
    warn: Callable[[str], None]
    bad_in_a_row: int = field(default=0)
    """Refused optimizer steps since the last good one."""

    async def train(self, outcomes: Outcomes) -> Trained:
        """Train what was scored.

        Raises:
            RunFailedError: after more than `max_bad_steps` refused optimizer steps in a row.
        """
        results: list[StepResult] = []
        trained: list[Batch] = []
        refused: list[Lost] = []
        for batch in self.batches(outcomes.scored):
            try:
                with attribute_to(self.student):
                    require_finite(batch)
                    results.append(await self.student.train(batch))
            except BadStepError as error:
                refused += [Lost(datum.key, "train", str(error), retryable=False) for datum in batch.datums]
                self._count(error)
            else:
                trained.append(batch)
                self.bad_in_a_row = 0
        metrics = mean_of(results) | self.mismatch.look(results)
        if refused:
            metrics["train/refused_completions"] = float(len(refused))
        return Trained(without(outcomes, refused), trained, metrics)

    def batches(self, scored: Sequence[ScoredRollout]) -> list[Batch]:
        """The step's data, split into as many optimizer steps as `train.num_substeps` says; none without data."""
        parts = min(self.substeps, len(scored))
        cuts = [len(scored) * i // parts for i in range(parts + 1)] if parts else []
        made = [self.loss.batch(scored[a:b]) for a, b in pairwise(cuts)]
        taken = self.student.loss_functions().get(self.loss.loss_function)
        options = self.loss.options() if taken is None else self.loss.options_for(taken)
        return [replace(batch, options=options, torch_loss=self.loss.torch_loss()) for batch in made]

    def _count(self, error: BadStepError) -> None:
        self.bad_in_a_row += 1
        if self.bad_in_a_row > self.max_bad_steps:
            raise RunFailedError(
                f"{self.bad_in_a_row} optimizer steps in a row were refused, more than train.max_bad_steps="
                f"{self.max_bad_steps} allows; the last: {error}"
            ) from error
        self.warn(f"an optimizer step was refused, the weights are as they were: {error}")


def without(outcomes: Outcomes, refused: Sequence[Lost]) -> Outcomes:
    """The outcomes with some completions lost after all."""
    if not refused:
        return outcomes
    gone = {one.key for one in refused}
    scored = tuple(one for one in outcomes.scored if one.key not in gone)
    return replace(outcomes, scored=scored, lost=(*outcomes.lost, *refused))


def require_finite(batch: Batch) -> None:
    """Raise BadStepError, naming row, completion and token, if the loss would read a number that is not finite."""
    for datum in batch.datums:
        for name, array in datum.inputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise BadStepError(f"{datum.key}: {name} of token {_first_bad(array)} is {_bad_value(array)}")


def _first_bad(array: Array) -> int:
    return int(np.argwhere(~np.isfinite(array))[0][0])


def _bad_value(array: Array) -> str:
    return str(array[~np.isfinite(array)].reshape(-1)[0])
