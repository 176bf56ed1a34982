"""What rank 0 has the others do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distillkit.events import Plan
from distillkit.records import Batch, ScoreRequest, Weights
from distillkit.types import SampleRequest
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.live_teacher import LiveLocalTeacher, TeacherOptions
from distillkit_builtin.local.ranks.messages import Order
from distillkit_builtin.local.ranks.worker import Post
from distillkit_builtin.local.trainer import Gathered

HandOver = Callable[[object], None]


@dataclass(frozen=True, slots=True)
class OpenStudent(Order):
    """Load the student of the config, with its trainer."""

    plan: Plan | None

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        with post.silent():
            post.pupil = await LiveLocalStudent.open(post.context(self.plan), post.student)


@dataclass(frozen=True, slots=True)
class OpenTeacher(Order):
    """Load a teacher, as `LiveLocalTeacher.open` does."""

    options: TeacherOptions

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        with post.silent():
            post.teachers[self.options.teacher.name] = await LiveLocalTeacher.open(post.context(None), self.options)


@dataclass(frozen=True, slots=True)
class TakeOver(Order):
    """Take over rank 0's weights, which sends them at the same time."""

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        await post.open_pupil().take_over()


@dataclass(frozen=True, slots=True)
class Draw(Order):
    """Draw completions, handing each over when it ends: from the student, or from a teacher by name."""

    teacher: str | None
    requests: tuple[SampleRequest, ...]

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        async for rollout in post.model(self.teacher).sample(self.requests):
            hand_over(rollout)


@dataclass(frozen=True, slots=True)
class ScoreTokens(Order):
    """Score completions, handing each score over, under the student or a teacher by name."""

    teacher: str | None
    requests: tuple[ScoreRequest, ...]

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        async for score in post.model(self.teacher).score(self.requests):
            hand_over(score)


@dataclass(frozen=True, slots=True)
class Gather(Order):
    """Gather the gradient of this share of a batch, in so many `parts` if that is said."""

    batch: Batch
    parts: int | None = None

    async def carry_out(self, post: Post, hand_over: HandOver) -> Gathered:
        """See `Order`."""
        return await post.open_pupil().gather(self.batch, self.parts)


@dataclass(frozen=True, slots=True)
class Apply(Order):
    """Sum the gradients with all other ranks, which do the same at the same time, and move the weights."""

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        await post.open_pupil().apply()


@dataclass(frozen=True, slots=True)
class Sync(Order):
    """Sample from the current weights from now on."""

    weights: Weights

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        await post.open_pupil().sync(self.weights)


@dataclass(frozen=True, slots=True)
class Load(Order):
    """Take back what rank 0 saved."""

    path: Path

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        with post.silent():
            await post.open_pupil().load(self.path)


@dataclass(frozen=True, slots=True)
class HelpToSave(Order):
    """Give the parts of weights and moments that rank 0 saves at the same time."""

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        await post.open_pupil().help_to_save()


@dataclass(frozen=True, slots=True)
class HelpToExport(Order):
    """Give the parts of the weights that rank 0 exports at the same time."""

    async def carry_out(self, post: Post, hand_over: HandOver) -> None:
        """See `Order`."""
        await post.open_pupil().help_to_export()
