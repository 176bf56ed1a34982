"""Evaluating one policy version: completions are drawn once and shared by all evaluators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from distillkit.errors import RunFailedError
from distillkit.events import EvalResult, EvalStage
from distillkit.loop.window import Schedule, Work, sample_all, score_all
from distillkit.metrics import finite
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.roles.sampler import Sampler, TokenScorer
from distillkit.seeds import derive_seed
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
    schedule: Schedule
    params: SamplingParams
    seed: int
    stage: EvalStage
    step: int
    policy_version: int
    _rollouts: Sequence[Rollout] | None = field(default=None, init=False)
    _scored: Sequence[ScoredRollout] | None = field(default=None, init=False)
    _routes: Mapping[str, Route] = field(init=False)

    def __post_init__(self) -> None:
        """Know each row's route."""
        self._routes = {one.row.row_id: one.route for one in self.prompts}

    @property
    def rows(self) -> Sequence[Row]:
        """The held-out rows, in file order."""
        return [prompts.row for prompts in self.prompts]

    def route(self, row: Row) -> Route:
        """Which teachers the row is routed to."""
        return self._routes[row.row_id]

    def _work(self) -> Work:
        requests = tuple(
            SampleRequest(
                key := SampleKey(one.row.row_id, 0, 0),
                one.student,
                derive_seed(self.seed, "eval", key.row_id),
                self.params,
            )
            for one in self.prompts
        )
        return Work({(one.row.row_id, 0): one for one in self.prompts}, requests)

    async def rollouts(self) -> Sequence[Rollout]:
        """The student's completions of the held-out rows, in row order."""
        if self._rollouts is None:
            work = self._work()
            drawn, _ = await sample_all(self.schedule.sampler, work.requests, self.schedule.vocabulary)
            self._rollouts = [drawn[request.key] for request in work.requests if request.key in drawn]
        return self._rollouts

    async def scored(self) -> Sequence[ScoredRollout]:
        """The same completions with the scores of their routed teachers."""
        if self._scored is None:
            work = self._work()
            if self._rollouts is None:
                window = self.schedule.start(work)
            else:
                drawn = {rollout.key for rollout in self._rollouts}
                kept = tuple(request for request in work.requests if request.key in drawn)
                window = self.schedule.rescore(Work(work.prompts, kept), self._rollouts)
            outcomes = await window.finished()
            if not outcomes.scored:
                reason = outcomes.lost[0].reason if outcomes.lost else "there are no held-out rows"
                raise RunFailedError(f"evaluation at step {self.step}: no completion could be scored: {reason}")
            self._scored = outcomes.scored
            self._rollouts = outcomes.rollouts
        return self._scored

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """The teacher's own completions of the rows routed to it, or None where its scorer cannot sample."""
        scorer = self.schedule.scorers[teacher]
        if not isinstance(scorer, Sampler):
            return None
        requests = [
            SampleRequest(
                SampleKey(one.row.row_id, 0, 0),
                one.teachers[teacher] if privileged else one.student,
                derive_seed(self.seed, "teacher", seed, one.row.row_id),
                self.params,
            )
            for one in self.prompts
            if teacher in one.route.teachers
        ]
        drawn, _ = await sample_all(scorer, requests, self.schedule.vocabulary)
        return [drawn[request.key] for request in requests if request.key in drawn]

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """Logprobs of given completions under the student or a teacher, or None where the sampler cannot score."""
        scorer = self.schedule.sampler if teacher is None else self.schedule.scorers[teacher]
        if not isinstance(scorer, TokenScorer):
            return None
        prompts = {one.row.row_id: one for one in self.prompts}
        requests = [
            ScoreRequest(
                rollout,
                teacher or STUDENT,
                one.teachers[teacher] if teacher is not None and privileged else one.student,
            )
            for rollout in rollouts
            for one in (prompts[rollout.key.row_id],)
        ]
        scores, _ = await score_all(scorer, requests)
        return [scores[rollout.key] for rollout in rollouts if rollout.key in scores]

    def examples(self, per_route: int) -> tuple[ScoredRollout, ...]:
        """The first scored completions of each route, where evaluators asked for scores."""
        first: dict[str, list[ScoredRollout]] = {}
        for one in self._scored or ():
            first.setdefault(one.prompts.route.label, []).append(one)
        return tuple(one for mine in first.values() for one in mine[:per_route])


def eval_summary(results: Mapping[str, EvalResult]) -> dict[str, JsonValue]:
    """The metrics of all evaluators, and below `routes` those of each route, as `summary.json` holds them."""
    summary: dict[str, JsonValue] = {}
    routes: dict[str, dict[str, JsonValue]] = {}
    for result in results.values():
        summary |= {name: finite(value) for name, value in result.metrics.items()}
        for route, values in result.routes.items():
            routes.setdefault(route, {}).update({name: finite(value) for name, value in values.items()})
    return {**summary, "routes": dict(routes)}
