"""Fakes that also say the entropy and the top-K of their distributions, exactly: each has one over bytes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from distillkit import Scorer, Student, hookimpl
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.types import SampleRequest


def arrays_of(logits: Any, count: int, wanted: Mapping[str, int]) -> dict[str, Any]:
    """What is wanted of so many tokens, all of which have this distribution."""
    logprobs = logits - np.log(np.exp(logits.astype(np.float64)).sum())
    arrays: dict[str, Any] = {}
    if "topk" in wanted:
        ids = np.argsort(-logprobs, kind="stable")[: wanted["topk"]]
        arrays["topk_ids"] = np.tile(ids, (count, 1))
        arrays["topk_logprobs"] = np.tile(logprobs[ids], (count, 1)).astype(np.float32)
    if "entropy" in wanted:
        arrays["entropy"] = np.full(count, -(np.exp(logprobs) * logprobs).sum(), np.float32)
    return arrays


class TellingStudent(FakeStudent):
    """Says its entropy and top-K."""

    name: ClassVar[str] = "telling"

    def sampling_capabilities(self) -> Mapping[str, int | None]:
        return {"topk": None, "entropy": None}

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        bare = [replace(request, wanted={}) for request in requests]
        wanted = {request.key: request for request in requests}
        async for rollout in super().sample(bare):
            assert isinstance(rollout, Rollout)
            request = wanted[rollout.key]
            arrays = arrays_of(self._sampling, len(rollout.token_ids), request.wanted)
            yield replace(rollout, request=request, arrays=arrays)


class TellingScorer(FakeScorer):
    """Says its top-K, up to `most`."""

    name: ClassVar[str] = "telling"

    most: int = Field(8, description="The largest K.")

    def capabilities(self) -> Mapping[str, int | None]:
        return {"sampled": None, "topk": self.most}

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        logits = np.zeros(ByteTokenizer.size, np.float32)
        logits[list(self.likes.encode())] = self.strength
        wanted = {request.key: request for request in requests}
        async for score in super().score([replace(request, topk=0) for request in requests]):
            assert isinstance(score, Score)
            request = wanted[score.request.key]
            asked = {"topk": request.topk} if request.topk else {}
            yield replace(score, request=request, arrays=arrays_of(logits, len(request.token_ids), asked))


@hookimpl
def distillkit_students() -> Sequence[type[Student]]:
    return [TellingStudent, FakeStudent]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    return [TellingScorer, FakeScorer]
