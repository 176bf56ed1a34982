"""Completions that are sampled and scored but not yet trained, as a checkpoint holds them.

With several steps off policy they cannot be had again: the policy that sampled them is gone, and a teacher may have
moved. Rows and prompts are not saved: the row pipeline makes them again, and they are compared by their keys.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from distillkit.loop.outcomes import LostCompletion, Outcomes, WindowRequests
from distillkit.loop.window import KeptWindow
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.run_directory.codec import Encoded, from_json, to_json
from distillkit.types import Prompts, SampleKey

SCORES = ("scores", "references")
"""The fields of a scored rollout that hold scores."""


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """One window that came to its end: the version that sampled it, and what became of its completions."""

    policy_version: int
    outcomes: Mapping[str, Any]
    """As JSON; of each completion all fields but those that its request and prompts give again."""

    @classmethod
    def of(cls, requests: WindowRequests, outcomes: Outcomes) -> "InFlight":
        """What is to be kept of a window that has come to its end."""
        scored = {completion.key: completion for completion in outcomes.scored}
        return cls(
            requests.policy_version or 0,
            Encoded(
                to_json(outcomes, without=("scored", "rollouts")),
                rollouts=[_completion_to_json(rollout, scored.get(rollout.key)) for rollout in outcomes.rollouts],
            ),
        )

    @property
    def completions(self) -> int:
        """How many completions were sampled."""
        return len(self.outcomes["rollouts"])

    @property
    def unanswered(self) -> bool:
        """Whether a teacher left a completion without a score that it may give when it is asked again."""
        return any(lost["stage"] == "score" and lost["retryable"] for lost in self.outcomes["lost"])

    def for_requests(self, requests: WindowRequests) -> Outcomes | None:
        """The same outcomes for the same requests; None if they are of other rows or samples than `requests`."""
        asked = {request.key: request for request in requests.samples}
        saved = {from_json(SampleKey, fields["key"]): fields for fields in self.outcomes["rollouts"]}
        lost = tuple(from_json(LostCompletion, fields) for fields in self.outcomes["lost"])
        if asked.keys() != saved.keys() | {completion.key for completion in lost}:
            return None
        rollouts = {key: from_json(Rollout, saved[key]["rollout"], request=asked[key]) for key in asked if key in saved}
        scored = [
            _scored_from_json(saved[key]["scored"], rollout, requests.prompts_of(key))
            for key, rollout in rollouts.items()
            if saved[key]["scored"] is not None
        ]
        rest = {name: value for name, value in self.outcomes.items() if name not in ("rollouts", "lost")}
        return from_json(Outcomes, rest, scored=tuple(scored), lost=lost, rollouts=tuple(rollouts.values()))


def take_window(
    kept: list[InFlight], requests_of: Callable[[int], WindowRequests], warn: Callable[[str], None]
) -> KeptWindow | None:
    """The first of `kept` as a window of the rows that come next; they are not those where a last step grew fuller.

    `requests_of` says what those rows are asked under a policy version. Where they differ, all that is kept is dropped.
    """
    if not kept:
        return None
    requests = requests_of(kept[0].policy_version)
    outcomes = kept[0].for_requests(requests)
    if outcomes is None:
        warn(dropped(kept, "the steps that come next have other rows than they were to have then"))
        kept.clear()
        return None
    kept.pop(0)
    return KeptWindow(requests, outcomes)


def dropped(windows: Sequence[InFlight], why: str) -> str:
    """What the user reads about windows that are not used."""
    count = sum(window.completions for window in windows)
    return f"{count} completions that the checkpoint holds, sampled ahead, are dropped, their rows sampled again: {why}"


def _completion_to_json(rollout: Rollout, scored: ScoredRollout | None) -> dict[str, JsonValue]:
    return {
        "key": to_json(rollout.key),
        "rollout": to_json(rollout, without=("request",)),
        "scored": None if scored is None else _scored_to_json(scored),
    }


def _scored_to_json(scored: ScoredRollout) -> dict[str, JsonValue]:
    fields = to_json(scored, without=("rollout", "prompts", *SCORES))
    return {**fields, **{name: _scores_to_json(getattr(scored, name)) for name in SCORES}}


def _scores_to_json(scores: Mapping[str, Score]) -> dict[str, JsonValue]:
    return {
        teacher: Encoded(
            to_json(score, without=("request",)),
            request=to_json(score.request, without=("rollout", "teacher", "prompt_ids")),
        )
        for teacher, score in scores.items()
    }


def _scored_from_json(fields: Mapping[str, Any], rollout: Rollout, prompts: Prompts) -> ScoredRollout:
    scores = {
        name: {
            teacher: from_json(Score, score, request=_request_from_json(score["request"], rollout, teacher, prompts))
            for teacher, score in fields[name].items()
        }
        for name in SCORES
    }
    rest = {name: value for name, value in fields.items() if name not in SCORES}
    return from_json(ScoredRollout, rest, rollout=rollout, prompts=prompts, **scores)


def _request_from_json(fields: Mapping[str, Any], rollout: Rollout, teacher: str, prompts: Prompts) -> ScoreRequest:
    given = {"rollout": rollout, "teacher": teacher, "prompt_ids": prompts.teachers[teacher]}
    return from_json(ScoreRequest, fields, **given)
