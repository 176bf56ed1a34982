"""An `EvalContext` that is all there already."""

from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.events import EvalStage
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.types import Route, Row, Teacher


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Scored completions as an evaluator sees them, at no policy in particular."""

    completions: Sequence[ScoredRollout]
    teachers: Sequence[Teacher]
    stage: EvalStage = "before"
    step: int = 0
    policy_version: int = 0
    capable: bool = False
    """Teachers answer as the student did, and whoever is asked scores these completions as the student found them."""

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
        """The completions of the rows that are routed to it, where these teachers can sample."""
        mine = [one.rollout for one in self.completions if teacher in one.prompts.route.teachers]
        return mine if self.capable else None

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """The completions' own logprobs, where anyone can score."""
        asked = [ScoreRequest(rollout, teacher or "student", rollout.request.prompt_ids) for rollout in rollouts]
        return [Score(one, one.rollout.logprobs, one.rollout.token_ids) for one in asked] if self.capable else None
