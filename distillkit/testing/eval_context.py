"""An `EvalContext` of completions that are there already, for tests of evaluators."""

from collections.abc import Sequence
from dataclasses import dataclass

from distillkit.events import EvalStage
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.types import Route, Row, Teacher


@dataclass(frozen=True, slots=True)
class FakeEvalContext:
    """Scored completions as an evaluator sees them, at no policy in particular."""

    completions: Sequence[ScoredRollout]
    """What the student sampled, one for each held-out row, with scores."""
    teachers: Sequence[Teacher]
    """All teachers of the run."""
    stage: EvalStage = "before"
    step: int = 0
    """Optimizer steps trained so far."""
    policy_version: int = 0
    """Optimizer steps in the published weights."""
    samples_and_scores: bool = False
    """Whether teachers sample (what the student did) and everybody scores (with the completions' own logprobs)."""

    @property
    def rows(self) -> Sequence[Row]:
        """The row of each completion, in their order."""
        return [scored.prompts.row for scored in self.completions]

    def route(self, row: Row) -> Route:
        """The route in the prompts of the row's first completion. Raises StopIteration for a row without any."""
        return next(scored.prompts.route for scored in self.completions if scored.prompts.row.row_id == row.row_id)

    async def rollouts(self) -> Sequence[Rollout]:
        """The completions without their scores."""
        return [scored.rollout for scored in self.completions]

    async def scored(self) -> Sequence[ScoredRollout]:
        """The completions with their scores."""
        return self.completions

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """The completions of the rows that are routed to `teacher`; None without `samples_and_scores`."""
        routed = [scored.rollout for scored in self.completions if teacher in scored.prompts.route.teachers]
        return routed if self.samples_and_scores else None

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """Each rollout's own logprobs as its score; None without `samples_and_scores`."""
        if not self.samples_and_scores:
            return None
        requests = [ScoreRequest(rollout, teacher or "student", rollout.request.prompt_ids) for rollout in rollouts]
        return [Score(request, request.rollout.logprobs, request.token_ids) for request in requests]
