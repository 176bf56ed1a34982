"""Completions that are drawn and scored but not yet trained, as a checkpoint holds them.

With several steps off policy they cannot be had again: the policy that drew them is gone, and a teacher may have moved.
JSON: a float32 that is written as the shortest decimal of its value comes back as the same float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.loop.outcomes import LostCompletion, Outcomes, WindowRequests
from distillkit.loop.window import KeptWindow
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.types import SampleKey, SampleRequest


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """One window: the version that drew it, and what became of it so far."""

    policy_version: int
    outcomes: Mapping[str, Any]
    """As JSON."""

    @classmethod
    def of(cls, work: WindowRequests, outcomes: Outcomes) -> "InFlight":
        """What is to be kept of a window that has come to its end."""
        scores = {one.key: one.scores for one in outcomes.scored}
        return cls(
            work.policy_version or 0,
            {
                "rollouts": [_rollout_as_json(one, scores.get(one.key, {})) for one in outcomes.rollouts],
                "lost": [asdict(one) for one in outcomes.lost],
                "sample_seconds": outcomes.sample_seconds,
                "score_seconds": outcomes.score_seconds,
            },
        )

    def as_json(self) -> dict[str, JsonValue]:
        """As `engine.json` holds it."""
        return {"policy_version": self.policy_version, **self.outcomes}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "InFlight":
        """What `as_json` gave."""
        return cls(value["policy_version"], value)

    @property
    def completions(self) -> int:
        """How many were drawn."""
        return len(self.outcomes["rollouts"])

    def for_work(self, work: WindowRequests) -> Outcomes | None:
        """The same outcomes for the same requests; None if they are of other rows or samples than `work`."""
        requests = {request.key: request for request in work.requests}
        said = {_key(one): one for one in self.outcomes["rollouts"]}
        lost = tuple(LostCompletion(**{**one, "key": _key(one["key"])}) for one in self.outcomes["lost"])
        if requests.keys() != said.keys() | {one.key for one in lost}:
            return None
        rollouts = {key: _rollout(said[key], requests[key], self.policy_version) for key in requests if key in said}
        gone = {one.key for one in lost}
        scored = [
            ScoredRollout(rollout, prompts, _scores(said[key]["scores"], rollout, prompts.teachers))
            for key, rollout in rollouts.items()
            for prompts in (work.prompts[key.row_id, key.epoch],)
            if key not in gone
        ]
        seconds = self.outcomes["sample_seconds"], self.outcomes["score_seconds"]
        return Outcomes(tuple(scored), lost, tuple(rollouts.values()), *seconds)


def take_window(
    kept: list[InFlight], work_of: Callable[[int], WindowRequests], warn: Callable[[str], None]
) -> KeptWindow | None:
    """The first of `kept` as a window of the rows that come next; they are not those where a last step grew fuller.

    `work_of` says what those rows are asked under a policy version. Where they differ, all that is kept is let go.
    """
    if not kept:
        return None
    work = work_of(kept[0].policy_version)
    outcomes = kept[0].for_work(work)
    if outcomes is None:
        warn(dropped(kept, "the steps that come next have other rows than they were to have then"))
        kept.clear()
        return None
    kept.pop(0)
    return KeptWindow(work, outcomes)


def dropped(windows: Sequence[InFlight], why: str) -> str:
    """What the user is told of windows that are not used."""
    count = sum(window.completions for window in windows)
    return f"{count} completions that the checkpoint holds, drawn ahead, are dropped, their rows sampled again: {why}"


def _key(one: Mapping[str, Any]) -> SampleKey:
    return SampleKey(one["row_id"], one["epoch"], one["sample"])


def _rollout_as_json(rollout: Rollout, scores: Mapping[str, Score]) -> dict[str, JsonValue]:
    return {
        **asdict(rollout.key),
        "token_ids": rollout.token_ids.tolist(),
        "logprobs": _numbers(rollout.logprobs),
        "mask": None if rollout.mask is None else rollout.mask.tolist(),
        "finish_reason": rollout.finish_reason,
        "text": rollout.text,
        "rewards": {name: float(value) for name, value in rollout.rewards.items()},  # numpy's are no JSON
        "scores": {teacher: _score_as_json(score) for teacher, score in scores.items()},
    }


def _score_as_json(score: Score) -> dict[str, JsonValue]:
    return {
        "logprobs": _numbers(score.logprobs),
        "echoed_ids": None if score.echoed_ids is None else score.echoed_ids.tolist(),
        "version": score.version,
        "arrays": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape), "values": _numbers(array.reshape(-1))}
            for name, array in score.arrays.items()
        },
    }


def _numbers(array: Array) -> list[JsonValue]:
    """JSON has no NaN, which stands where nothing was sampled: null, which numpy reads as NaN again."""
    values: list[JsonValue] = array.tolist()
    if array.dtype.kind == "f":
        for index in np.flatnonzero(np.isnan(array)):
            values[index] = None
    return values


def _rollout(said: Mapping[str, Any], request: SampleRequest, version: int) -> Rollout:
    return Rollout(
        request=request,
        policy_version=version,
        token_ids=np.array(said["token_ids"], np.int64),
        logprobs=np.array(said["logprobs"], np.float32),
        finish_reason=said["finish_reason"],
        text=said["text"],
        mask=None if said["mask"] is None else np.array(said["mask"], np.bool_),
        rewards=said["rewards"],
    )


def _scores(said: Mapping[str, Any], rollout: Rollout, prompts: Mapping[str, Array]) -> dict[str, Score]:
    return {
        teacher: Score(
            request=ScoreRequest(rollout, teacher, prompts[teacher]),
            logprobs=np.array(one["logprobs"], np.float32),
            echoed_ids=None if one["echoed_ids"] is None else np.array(one["echoed_ids"], np.int64),
            version=one["version"],
            arrays={
                name: np.array(array["values"], array["dtype"]).reshape(array["shape"])
                for name, array in one["arrays"].items()
            },
        )
        for teacher, one in said.items()
    }
