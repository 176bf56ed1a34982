"""The student's weights on their way to whoever samples, and to the teachers that follow the student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distillkit.loop.window import AnyWindow
from distillkit.records import Weights
from distillkit.roles.returned import awaited, require_returned
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.student import Student


@dataclass(slots=True)
class PolicySync:
    """Publishes policy versions; a window is sampled by one of them, and scored by one version of each teacher."""

    student: Student
    sampler: Sampler
    scorers: Mapping[str, Scorer]
    """Teacher name to the scorer of that teacher."""
    version: int = 0
    """The policy that samples: the steps that its weights had been trained."""

    async def publish(self, step: int, in_flight: Sequence[AnyWindow], *, resumed: bool = False) -> None:
        """Have the weights of `step` sample from now on, once nothing samples from the ones before.

        Scorers that move hear of it after every window that was sampled before is scored. At the version at which a
        run is resumed they hear nothing: `restore` has brought that back.
        """
        for window in in_flight:
            await window.until_sampled()
        weights = await awaited(self.student, "publish", self.student.publish(step))
        require_returned(self.student, weights, Weights, "publish()")
        await awaited(self.sampler, "sync", self.sampler.sync(weights))
        self.version = step
        moving = [scorer for scorer in self.scorers.values() if scorer.moves()]
        if resumed or not moving:
            return
        for window in in_flight:
            await window.finished()
        for scorer in moving:
            await awaited(scorer, "on_sync", scorer.on_sync(weights))
