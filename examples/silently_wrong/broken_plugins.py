"""A scorer and students that are wrong in ways that plugins and servers are: to be given by `-p`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr

from distillkit import Failure, Rollout, SampleRequest, Score, Scorer, ScoreRequest, Student, Weights, hookimpl
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent


class Careless(LocalScorer):
    """A teacher whose answers are put together without care."""

    name: ClassVar[str] = "careless"

    fault: Literal["one_short", "padded", "other_text"] = Field(
        "one_short", description="A logprob is missing; is NaN in its place; the text was tokenized once more."
    )

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """Scores with a fault."""
        async for score in super().score(requests):
            logprobs, ids = score.logprobs.copy(), score.request.rollout.token_ids.copy()
            if self.fault == "one_short":
                yield replace(score, logprobs=logprobs[:-1])
            elif self.fault == "padded":
                logprobs[-1] = float("nan")
                yield replace(score, logprobs=logprobs)
            else:
                ids[0] += 1
                yield replace(score, echoed_ids=ids)


class Stale(LocalStudent):
    """Samples from the first weights for ever, and says that it does not."""

    name: ClassVar[str] = "stale"

    _version: int = PrivateAttr(0)

    async def sync(self, weights: Weights) -> None:
        """Takes the first weights, and the number of all."""
        if weights.version == 0:
            await super().sync(weights)
        self._version = weights.version

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of version 0, by another name."""
        async for outcome in super().sample(requests):
            yield replace(outcome, policy_version=self._version) if isinstance(outcome, Rollout) else outcome


class Greedy(LocalStudent):
    """Takes the most probable token, whatever was requested, as a server does that fills in `top_k: 1`."""

    name: ClassVar[str] = "greedy"

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Completions of another distribution than the one whose logprobs they carry."""
        asked = {request.key: request for request in requests}
        changed = [replace(request, params=replace(request.params, top_k=1)) for request in requests]
        async for outcome in super().sample(changed):
            yield replace(outcome, request=asked[outcome.request.key])


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    """The scorer."""
    return [Careless]


@hookimpl
def distillkit_students() -> Sequence[type[Student]]:
    """The students."""
    return [Stale, Greedy]
