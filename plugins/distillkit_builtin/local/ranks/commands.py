"""The commands that rank 0 sends to the other ranks, each a frozen value that knows how to execute itself there."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distillkit.records import ScoreRequest, Weights
from distillkit.run_plan import Plan
from distillkit.training_data import Batch
from distillkit.types import SampleRequest, Teacher
from distillkit_builtin.local.device import shared_device
from distillkit_builtin.local.live_student import LiveLocalStudent, load_proved
from distillkit_builtin.local.live_teacher import LiveLocalTeacher
from distillkit_builtin.local.options import LocalScorerOptions
from distillkit_builtin.local.ranks.agreement import Ways
from distillkit_builtin.local.ranks.rank_fingerprint import Fingerprint, student_fingerprint, teacher_fingerprint
from distillkit_builtin.local.ranks.worker_state import WorkerState
from distillkit_builtin.local.training.trainer import GradientShare
from distillkit_builtin.local.training.trainer_checkpoint import SavedTrainer

Stream = Callable[[object], None]
"""Sends one value to rank 0 while the command is still being executed."""


class Command(ABC):
    """Something that another rank is to do."""

    @abstractmethod
    async def execute(self, state: WorkerState, stream: Stream) -> Any:  # noqa: ANN401 - each command has its own
        """Do it with what the rank holds. Returns the result; `stream` takes values that are there earlier."""


@dataclass(frozen=True, slots=True)
class DescribeStudent(Command):
    """Find out what of the student, and of all that numbers depend on, the rank has."""

    async def execute(self, state: WorkerState, stream: Stream) -> Fingerprint:
        """Returns it; nothing is loaded."""
        with state.silent():
            context, device = state.context(None), shared_device(state.run, state.options.device)
            return await device.run(student_fingerprint, context, state.options, device.device)


@dataclass(frozen=True, slots=True)
class DescribeTeacher(Command):
    """Find out which model of a teacher the rank has."""

    teacher: Teacher
    place: int
    """Which of the config's teachers it is."""
    options: LocalScorerOptions

    async def execute(self, state: WorkerState, stream: Stream) -> Fingerprint:
        """Returns it; nothing is loaded."""
        teacher, device = state.local_teacher(self.teacher, self.place), shared_device(state.run, self.options.device)
        return await device.run(teacher_fingerprint, teacher, self.options, device.device)


@dataclass(frozen=True, slots=True)
class LoadStudent(Command):
    """Load the student of the config."""

    plan: Plan | None

    async def execute(self, state: WorkerState, stream: Stream) -> Ways:
        """Returns how this rank may compute it."""
        with state.silent():
            state.proved = await load_proved(state.context(self.plan), state.options, samples=state.samples)
        return state.proved.ways


@dataclass(frozen=True, slots=True)
class BuildStudent(Command):
    """Build the trainer of the loaded student, and what samples, to be computed as on all ranks."""

    plan: Plan | None
    ways: Ways

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when it is built."""
        with state.silent():
            context, proved = state.context(self.plan), state.take_proved()
            state.student = await LiveLocalStudent.build(context, state.options, proved, self.ways)


@dataclass(frozen=True, slots=True)
class OpenTeacher(Command):
    """Load a teacher's model on the rank, from where its host has it."""

    teacher: Teacher
    place: int
    """Which of the config's teachers it is."""
    options: LocalScorerOptions

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when it is loaded."""
        with state.silent():
            teacher = state.local_teacher(self.teacher, self.place)
            live = await LiveLocalTeacher.open(state.context(None), teacher, self.options)
            state.teachers[self.teacher.name] = live


@dataclass(frozen=True, slots=True)
class TakeBroadcast(Command):
    """Take rank 0's weights, which broadcasts them at the same time."""

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when all ranks have them."""
        await state.opened_student().take_broadcast()


@dataclass(frozen=True, slots=True)
class Sample(Command):
    """Sample completions from the student, or from a teacher by name."""

    teacher: str | None
    requests: tuple[SampleRequest, ...]

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Streams each rollout when it ends."""
        async for rollout in state.model(self.teacher).sample(self.requests):
            stream(rollout)


@dataclass(frozen=True, slots=True)
class ScoreTokens(Command):
    """Score completions under the student, or under a teacher by name."""

    teacher: str | None
    requests: tuple[ScoreRequest, ...]

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Stream each score as it is computed."""
        async for score in state.model(self.teacher).score(self.requests):
            stream(score)


@dataclass(frozen=True, slots=True)
class ComputeGradient(Command):
    """Compute the gradient of this share of a batch, in so many `parts` unless that is None."""

    batch: Batch
    parts: int | None = None

    async def execute(self, state: WorkerState, stream: Stream) -> GradientShare:
        """Returns the share's loss and mismatch; the gradient stays."""
        return await state.opened_student().compute_gradient(self.batch, self.parts)


@dataclass(frozen=True, slots=True)
class ApplyGradient(Command):
    """Sum the gradients with all other ranks, which do the same at the same time, and move the weights."""

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when the weights are moved."""
        await state.opened_student().apply_gradient()


@dataclass(frozen=True, slots=True)
class Sync(Command):
    """Sample from the current weights from now on."""

    weights: Weights

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when the sampling copy has them."""
        await state.opened_student().sync(self.weights)


@dataclass(frozen=True, slots=True)
class TakeSaved(Command):
    """Take what a checkpoint holds from rank 0, which has read it and takes it at the same time."""

    saved: SavedTrainer
    """Without tensors."""

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when weights and optimizer have it."""
        with state.silent():
            await state.opened_student().take_saved(self.saved)


@dataclass(frozen=True, slots=True)
class JoinSave(Command):
    """Give the parts of weights and moments that rank 0 saves at the same time."""

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when rank 0 has them."""
        await state.opened_student().join_save()


@dataclass(frozen=True, slots=True)
class JoinExport(Command):
    """Give the parts of the weights that rank 0 writes at the same time."""

    async def execute(self, state: WorkerState, stream: Stream) -> None:
        """Returns when rank 0 has them."""
        await state.opened_student().join_export()
