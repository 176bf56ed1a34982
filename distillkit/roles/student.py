"""Role `student`: the model that is trained."""

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import Field

from distillkit.arrays import FloatArray
from distillkit.context import RunContext
from distillkit.errors import InputError, PluginError
from distillkit.records import Rollout, Weights
from distillkit.roles.plugin import Plugin
from distillkit.roles.sampler import Sampler
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, Datum, StepResult


class Student(Plugin):
    """The model that is trained: its weights, its optimizer, its checkpoints. Usually a Sampler too."""

    role: ClassVar[str] = "student"
    spreads: ClassVar[bool] = False
    """Whether a run may have several processes that torchrun started: rank 0 runs the engine, the others `work`."""

    sampler: Sampler | None = Field(None, description="Where completions come from; null: the student itself.")

    @abstractmethod
    def tokenizer(self, run: RunContext) -> Tokenizer:
        """The student's tokenizer. Called after `check`, before weights are loaded."""

    @abstractmethod
    def context_length(self, run: RunContext) -> int | None:
        """The longest prompt plus completion in tokens, or None where that is not known."""

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        """The loss functions that a service knows by name, and the options that each takes.

        For these no code of the loss is run; a student that runs such code needs no names.
        """
        return {}

    def loss_capabilities(self) -> frozenset[str]:
        """What the `Positions` have that it gives the loss's own function (`Loss.token_loss`).

        Names of `distillkit.positions.READS`, and `full` where it asks the teachers of a row again for their
        distributions. Empty: it runs no code of a loss, and trains those of `loss_functions` alone.
        What it then owes a loss is in `docs/developers/losses-and-backends.md`.
        """
        return frozenset()

    @abstractmethod
    async def train(self, batch: Batch) -> StepResult:
        """One optimizer step on the whole batch: the sum over tokens of `weights * loss`.

        Raises:
            BadStepError: if loss or gradient is not finite; weights and optimizer are as they were then.
        """

    @abstractmethod
    async def publish(self, version: int) -> Weights:
        """Make the current weights available to samplers as policy `version`."""

    @abstractmethod
    async def save(self, path: Path) -> None:
        """Write weights and optimizer state into the existing directory `path`, for `load`."""

    @abstractmethod
    async def load(self, path: Path) -> None:
        """Take back what `save` wrote."""

    @abstractmethod
    async def export(self, run_dir: Path) -> Path:
        """Write the final weights for others to use, into `run_dir`; return the directory or file."""

    def from_export(self, path: Path) -> "Student":
        """This student as it starts from what `export` wrote to `path`, for evaluations where no checkpoint is kept.

        Raises InputError, with the reason, where that cannot be: by default it cannot.
        """
        raise InputError(f"student {self.name!r} does not start from what it exported ({path}); keep a checkpoint")

    def require_exportable(self, *, merged: bool) -> None:
        """Raise InputError, with the reason, unless `distillkit export` can write the weights of a run that has ended.

        That opens this student, loads a checkpoint and calls `export`, and for a whole model (`merged`) `merge`. It may
        create nothing elsewhere and cost nothing. By default it cannot be.
        """
        where = "as a whole model" if merged else "of a checkpoint"
        raise InputError(
            f"student {self.name!r} ({type(self).__name__}) writes no weights {where} onto this machine once its run "
            "has ended"
        )

    async def merge(self, run: RunContext, exported: Path, folder: Path) -> None:
        """Write what `export` wrote to `exported` as a whole model into the empty directory `folder`.

        Called only where `require_exportable` let it, on a student that need not be open. Raises InputError.
        """
        raise PluginError(f"{type(self).__name__} lets whole models be exported, and has no `merge`")

    async def until_broken(self) -> None:
        """Wait until the student cannot go on, and raise why; the run ends then, whatever it is waiting for.

        It may call `save` once more, which then saves what was trained last, or raises at once why it cannot.
        By default this waits for ever.
        """
        await asyncio.get_running_loop().create_future()

    async def work(self, run: RunContext) -> Mapping[str, str] | None:
        """What every process but rank 0 does, on a student that was not opened there: its share, until the run ends.

        Processes may be on hosts that share no disk: what they must have alike (`RunContext.must_agree`, and what is
        loaded) it compares before it loads anything. Returns the content of `summary.json` and `metrics.jsonl` by name,
        where rank 0 sends them, for the result that `distillkit.run` gives; None: the run's directory is seen here too.
        """
        raise PluginError(f"{type(self).__name__} has `spreads` set, and no `work`")


@runtime_checkable
class ComputesLogprobs(Protocol):
    """What a Student has besides, if it can say what the weights that it trains make of given completions.

    A probe compares another sampler's logprobs with these. Without it nothing is known, before the first step, of what
    that sampler serves.
    """

    async def logprobs(self, rollouts: Sequence[Rollout]) -> Sequence[FloatArray] | None:
        """Of each completion's tokens [R], in the order of `rollouts`: as in training, without gradient or dropout.

        It must change nothing that a later step depends on. None: they cannot be had in this run.
        """
        ...


@runtime_checkable
class MeasuresRouteGradients(Protocol):
    """What a Student has besides, if it can say how the gradients of a step's routes lie to each other.

    Without it `train.route_gradients_every` is refused.
    """

    async def route_gradients(self, batches: Sequence[Batch]) -> Sequence[Sequence[float]] | None:
        """[n][n] the inner products of the batches' gradients, as `train` computes them, under the weights as they are.

        It must change nothing that a later step depends on. None: they cannot be had in this run.

        Raises:
            BadStepError: as `train`.
        """
        ...


def token_at(datums: Sequence[Datum], position: int) -> str:
    """Which completion and token a position in datums laid end to end is, for a student to say in a BadStepError.

    Raises ValueError for a position behind the last datum.
    """
    for datum in datums:
        if position < len(datum.response_ids):
            return f"{datum.key}: token {position} (id {int(datum.response_ids[position])})"
        position -= len(datum.response_ids)
    raise ValueError("the position lies behind the last datum")
