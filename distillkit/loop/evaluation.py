"""Evaluating one policy version: completions are sampled once and shared by all evaluators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distillkit.errors import RunFailedError
from distillkit.events import EvalStage
from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.sample_and_score import sample_all, score_all
from distillkit.loop.window import Scheduler
from distillkit.records import Rollout, Score, ScoredRollout
from distillkit.roles.sampler import Sampler, TokenScorer
from distillkit.seeds import derive_seed
from distillkit.tokenizer import wrong_end
from distillkit.types import Prompts, Route, Row, SampleKey, SampleRequest, SamplingParams, Teacher

STUDENT = "the student"
"""Who scores, in the ScoreRequests that go to the student's sampler."""


@dataclass(slots=True)
class Evaluation:
    """The `EvalContext` that the engine gives to evaluators.

    A held-out row's completion has the same seed at every evaluation of a run, so that before and after differ by the
    policy and as little else as possible.
    """

    prompts: Sequence[Prompts]
    teachers: Sequence[Teacher]
    scheduler: Scheduler
    params: SamplingParams
    seed: int
    stage: EvalStage
    step: int
    policy_version: int
    _rollouts: Sequence[Rollout] | None = field(default=None, init=False)
    _scored: Sequence[ScoredRollout] | None = field(default=None, init=False)
    _routes: Mapping[str, Route] = field(init=False)

    def __post_init__(self) -> None:
        """Index the routes by row id."""
        self._routes = {row_prompts.row.row_id: row_prompts.route for row_prompts in self.prompts}

    @property
    def rows(self) -> Sequence[Row]:
        """The held-out rows, in file order."""
        return [prompts.row for prompts in self.prompts]

    def route(self, row: Row) -> Route:
        """Which teachers the row is routed to."""
        return self._routes[row.row_id]

    def _requests(self) -> WindowRequests:
        requests = tuple(
            SampleRequest(
                key := SampleKey(row_prompts.row.row_id, 0, 0),
                row_prompts.student,
                derive_seed(self.seed, "eval", key.row_id),
                self.params,
            )
            for row_prompts in self.prompts
        )
        return WindowRequests({(row_prompts.row.row_id, 0): row_prompts for row_prompts in self.prompts}, requests)

    async def rollouts(self) -> Sequence[Rollout]:
        """The student's completions of the held-out rows, in row order."""
        if self._rollouts is None:
            asked = self._requests()
            sampled, _ = await sample_all(
                self.scheduler.sampler, asked.samples, self.scheduler.vocabulary, self.scheduler.progress
            )
            found = (sampled[request.key] for request in asked.samples if request.key in sampled)
            self._rollouts = [rollout for rollout in found if wrong_end(rollout) is None]
        return self._rollouts

    async def scored(self) -> Sequence[ScoredRollout]:
        """The same completions with the scores of their routed teachers."""
        if self._scored is None:
            asked = self._requests()
            if self._rollouts is None:
                window = self.scheduler.start(asked)
            else:
                sampled = {rollout.key for rollout in self._rollouts}
                kept = tuple(request for request in asked.samples if request.key in sampled)
                window = self.scheduler.rescore(WindowRequests(asked.prompts, kept), self._rollouts)
            outcomes = await window.finished()
            if not outcomes.scored:
                reason = outcomes.lost[0].reason if outcomes.lost else "there are no held-out rows"
                raise RunFailedError(f"evaluation at step {self.step}: no completion could be scored: {reason}")
            self._scored = outcomes.scored
            self._rollouts = outcomes.rollouts
        return self._scored

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """The teacher's own completions of the rows routed to it, or None where its scorer cannot sample."""
        scorer = self.scheduler.scorers[teacher]
        if not isinstance(scorer, Sampler):
            return None
        turn_ends = self.scheduler.turn_ends
        requests = [
            SampleRequest(
                SampleKey(row_prompts.row.row_id, 0, 0),
                row_prompts.teachers[teacher] if privileged else row_prompts.student,
                derive_seed(self.seed, "teacher", seed, row_prompts.row.row_id),
                turn_ends.params(self.params, teacher),
            )
            for row_prompts in self.prompts
            if teacher in row_prompts.route.teachers
        ]
        sampled, _ = await sample_all(scorer, requests, self.scheduler.vocabulary, self.scheduler.progress)
        return [turn_ends.rollout(sampled[request.key], teacher) for request in requests if request.key in sampled]

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """Logprobs of given completions under the student or a teacher, or None where the sampler cannot score."""
        scorer = self.scheduler.sampler if teacher is None else self.scheduler.scorers[teacher]
        if not isinstance(scorer, TokenScorer):
            return None
        prompts = {row_prompts.row.row_id: row_prompts for row_prompts in self.prompts}
        requests = [
            self.scheduler.turn_ends.request(
                rollout,
                teacher or STUDENT,
                row_prompts.teachers[teacher] if teacher is not None and privileged else row_prompts.student,
            )
            for rollout in rollouts
            for row_prompts in (prompts[rollout.key.row_id],)
        ]
        scores, _ = await score_all(scorer, requests, self.scheduler.progress)
        found = [scores[rollout.key] for rollout in rollouts if rollout.key in scores]
        return [self.scheduler.turn_ends.score(score) for score in found]

    @property
    def route_labels(self) -> Mapping[str, str]:
        """The id of each held-out row to the label of its route."""
        return {row_id: route.label for row_id, route in self._routes.items()}

    def sampled(self) -> Sequence[Rollout]:
        """The student's completions, where evaluators asked for them."""
        return self._rollouts or ()

    def examples(self, per_route: int) -> tuple[ScoredRollout, ...]:
        """The first scored completions of each route, where evaluators asked for scores."""
        first: dict[str, list[ScoredRollout]] = {}
        for completion in self._scored or ():
            first.setdefault(completion.prompts.route.label, []).append(completion)
        return tuple(completion for mine in first.values() for completion in mine[:per_route])
