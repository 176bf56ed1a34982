"""A window's outcomes as they come: each is checked, and each request has exactly one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from distillkit.data.turn_end_maps import TurnEndMaps
from distillkit.errors import PluginError
from distillkit.events import Phase
from distillkit.loop.outcomes import LostCompletion, Outcomes, Stage, WindowRequests
from distillkit.loop.wanted import both_rounds
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.token_arrays import known_topk
from distillkit.tokenizer import unknown_id, wrong_end
from distillkit.types import SampleKey

Value = TypeVar("Value", Rollout, Score)


@dataclass(slots=True)
class WindowResults:
    """The outcomes of a window that sampler and scorers have given so far."""

    requests: WindowRequests
    sampler: str
    """The sampler's class, for messages."""
    vocabulary: int | None
    turn_ends: TurnEndMaps = field(default_factory=TurnEndMaps)
    _order: dict[SampleKey, int] = field(init=False)
    """Each request's index in data order."""
    _rollouts: dict[SampleKey, Rollout] = field(default_factory=dict, init=False)
    _scores: dict[SampleKey, dict[str, Score]] = field(default_factory=dict, init=False)
    _first: dict[SampleKey, dict[str, Score]] = field(default_factory=dict, init=False)
    """Scores of a first round, of rows whose teachers are asked twice."""
    _lost: dict[SampleKey, LostCompletion] = field(default_factory=dict, init=False)
    _versions: dict[str, Score] = field(default_factory=dict, init=False)
    """Of each teacher its first score, whose version all others of the window must have."""
    _sampled: int = field(default=0, init=False)
    _scored: int = field(default=0, init=False)
    _to_score: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Number the requests in their order."""
        self._order = {request.key: index for index, request in enumerate(self.requests.samples)}

    def add_sample(self, outcome: Rollout | Failure) -> Rollout | None:
        """Take a sampler's answer; return the rollout if it can be scored. Raises PluginError for a second answer."""
        key = outcome.request.key
        if key not in self._order or key in self._rollouts or key in self._lost:
            raise PluginError(f"{self.sampler} answered {key} twice, or was never asked; one outcome a request")
        self._sampled += 1
        if isinstance(outcome, Failure):
            self._lose(key, "sample", outcome.reason, retryable=outcome.retryable)
            return None
        wanted = self.requests.policy_version
        if wanted is not None and outcome.policy_version != wanted:
            reason = f"sampled by policy version {outcome.policy_version}, this step trains version {wanted}"
            self._lose(key, "sample", reason, retryable=True)
            return None
        wrong = unknown_id(outcome, self.vocabulary) or wrong_end(outcome)
        if wrong is not None:
            self._lose(key, "sample", wrong, retryable=False)
            return None
        rollout = self._rollouts[key] = self._known(outcome)
        self._scores[key] = {}
        return rollout

    def require_all_sampled(self) -> None:
        """Raise PluginError if the sampler ended with requests that it gave no outcome for."""
        if self._sampled == len(self._order):
            return
        missing = [key for key in self._order if key not in self._rollouts and key not in self._lost]
        raise PluginError(
            f"{self.sampler} gave no outcome for {len(missing)} of {len(self._order)} requests: {missing[0]}"
        )

    def score_requests(self, rollout: Rollout) -> list[ScoreRequest]:
        """What is asked of each teacher of the rollout's route, at first."""
        prompts, wanted = self.requests.prompts_of(rollout.key), self.requests.wanted
        teachers = prompts.route.teachers
        asked = (self.turn_ends.request(rollout, teacher, prompts.teachers[teacher]) for teacher in teachers)
        requests = [wanted.first(request, prompts.route) for request in asked]
        self._to_score += len(requests) * (2 if wanted.unites(prompts.route) else 1) + len(wanted.references)
        requests += [self.turn_ends.request(rollout, name, prompts.teachers[name]) for name in wanted.references]
        return requests

    def add_score(
        self, outcome: Score | Failure, teacher: str, unanswered: dict[SampleKey, ScoreRequest]
    ) -> list[ScoreRequest]:
        """Take a scorer's answer to one of `unanswered`; return what is to be asked now that it is there.

        Raises PluginError for a second answer, and for one of another version or to another question.
        """
        key = outcome.request.key
        if key not in unanswered:
            raise PluginError(f"the scorer of teacher {teacher!r} answered {key} twice, or was never asked")
        asked = unanswered.pop(key)
        if isinstance(outcome, Score):
            self._scored += 1
            _require_answer(outcome, asked)
            self._require_one_version(outcome, teacher)
            return self._take(key, teacher, self._known(self.turn_ends.score(outcome)))
        if key not in self._lost:
            self._lose(key, "score", outcome.reason, retryable=outcome.retryable, teacher=teacher)
        return []

    def _take(self, key: SampleKey, teacher: str, score: Score) -> list[ScoreRequest]:
        """Keep a teacher's score; return the second round's requests if it is the last of a first round."""
        route, wanted = self.requests.prompts_of(key).route, self.requests.wanted
        if teacher in wanted.references or not wanted.unites(route):
            self._scores[key][teacher] = score
            return []
        first = self._first.setdefault(key, {})
        if teacher in first:
            self._scores[key][teacher] = both_rounds(first[teacher], score)
            return []
        first[teacher] = score
        return wanted.second(list(first.values())) if len(first) == len(route.teachers) else []

    def _known(self, value: Value) -> Value:
        """The rollout or score with top-K ids of the tokenizer alone."""
        arrays = known_topk(value.arrays, self.vocabulary)
        return value if arrays is value.arrays else replace(value, arrays=arrays)

    def _require_one_version(self, score: Score, teacher: str) -> None:
        first = self._versions.setdefault(teacher, score)
        if score.version != first.version:
            raise PluginError(
                f"the scorer of teacher {teacher!r} scored one window with two versions of itself: "
                f"{first.request.key} with {first.version}, {score.request.key} with {score.version}. A scorer that "
                "changes must say so by `moves()`, and change in `on_sync` alone"
            )

    def _lose(self, key: SampleKey, stage: Stage, reason: str, *, retryable: bool, teacher: str | None = None) -> None:
        self._lost[key] = LostCompletion(key, stage, reason, retryable, teacher)

    def progress(self, phase: Phase) -> tuple[int, int]:
        """How many completions are sampled, or scores are there, of how many; what failed is not among them."""
        return (len(self._rollouts), len(self._order)) if phase == "sample" else (self._scored, self._to_score)

    def in_data_order(self, requests: Iterable[ScoreRequest]) -> Sequence[ScoreRequest]:
        """Score requests in the order of their rows, whatever the order in which completions arrived."""
        return sorted(requests, key=lambda request: self._order[request.key])

    def outcomes(self, sample_seconds: float, score_seconds: float) -> Outcomes:
        """All outcomes, in data order; every request must have been answered."""
        scored = [self._scored_rollout(key) for key in self._order if key not in self._lost]
        rollouts = tuple(self._rollouts[key] for key in self._order if key in self._rollouts)
        return Outcomes(tuple(scored), tuple(self._lost.values()), rollouts, sample_seconds, score_seconds)

    def _scored_rollout(self, key: SampleKey) -> ScoredRollout:
        prompts, given = self.requests.prompts_of(key), self._scores[key]
        scores = {name: given[name] for name in prompts.route.teachers}
        references = {name: given[name] for name in self.requests.wanted.references}
        return ScoredRollout(self._rollouts[key], prompts, scores, references)

    def sampled(self) -> Outcomes:
        """What the sampler gave, as if no score had come yet."""
        rollouts = tuple(self._rollouts[key] for key in self._order if key in self._rollouts)
        return Outcomes((), tuple(self._lost.values()), rollouts, 0.0, 0.0).unscored()

    def abandoned(self, reason: str) -> Outcomes:
        """Every completion lost: by its own failure where it had one, else by `reason` at the stage that it reached."""
        lost = tuple(
            self._lost.get(key) or LostCompletion(key, self._stage_of(key), reason, retryable=True)
            for key in self._order
        )
        return Outcomes((), lost, (), 0.0, 0.0)

    def _stage_of(self, key: SampleKey) -> Stage:
        if key not in self._rollouts:
            return "sample"
        teachers = (*self.requests.prompts_of(key).route.teachers, *self.requests.wanted.references)
        return "train" if all(teacher in self._scores[key] for teacher in teachers) else "score"


def _require_answer(score: Score, asked: ScoreRequest) -> None:
    """Raise PluginError where a score is not of what was asked: its own request decides which arrays it must hold."""
    given = score.request
    same = given is asked or (
        (given.teacher, given.topk) == (asked.teacher, asked.topk)
        and np.array_equal(given.token_ids, asked.token_ids)
        and (given.at_ids is asked.at_ids or np.array_equal(given.at_ids, asked.at_ids))  # type: ignore[arg-type]
    )
    if not same:
        raise PluginError(
            f"the scorer of teacher {asked.teacher!r} answered {asked.key} with a score whose `request` is not the one "
            "that it was asked; pass on the ScoreRequest that came"
        )
