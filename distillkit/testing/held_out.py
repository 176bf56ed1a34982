"""An `EvalContext` that is all there already."""

from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.events import EvalStage
from distillkit.types import Rollout, Route, Row, ScoredRollout, Teacher


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scored completions as an evaluator sees them, at no policy in particular."""

    completions: Sequence[ScoredRollout]
    teachers: Sequence[Teacher]
    stage: EvalStage = "before"
    step: int = 0
    policy_version: int = 0

    @property
    def rows(self) -> Sequence[Row]:
        """The held-out rows."""
        return [one.prompts.row for one in self.completions]

    def route(self, row: Row) -> Route:
        """As each completion's prompts say."""
        return next(one.prompts.route for one in self.completions if one.prompts.row.row_id == row.row_id)

    async def rollouts(self) -> Sequence[Rollout]:
        """The completions."""
        return [one.rollout for one in self.completions]

    async def scored(self) -> Sequence[ScoredRollout]:
        """The completions with their scores."""
        return self.completions

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """These teachers cannot sample."""
        return None
