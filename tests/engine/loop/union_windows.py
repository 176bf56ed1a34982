"""Windows of rows that two teachers score, and what each is to say."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from distillkit import Scorer
from distillkit.events import PhaseProgress
from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.wanted import Wanted
from distillkit.loop.window import Scheduler
from distillkit.records import Failure, Score, ScoredRollout, ScoreRequest
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent, make_request, make_row, make_teacher
from distillkit.testing.fakes import log_softmax
from distillkit.types import Prompts, Route

ROWS = [make_row(f"question {line}", line=line) for line in range(1, 5)]
BOTH = Wanted({}, {"topk": 2, "at_ids": 1}, 0, 2)
LIKES = {"t": "AB", "u": "BC"}
"""So that the union of both top-2 is A, B, C."""


def requests_of(wanted: Wanted, routes: Sequence[Route] = ()) -> WindowRequests:
    routes = routes or [Route({"t": 0.5, "u": 0.5})] * len(ROWS)
    requests = tuple(replace(make_request(row, sample=i), wanted=wanted.of_sampler) for row in ROWS for i in range(2))
    prompt = requests[0].prompt_ids
    prompts = {
        (row.row_id, 0): Prompts(row, route, prompt, dict.fromkeys(route.teachers, prompt))
        for row, route in zip(ROWS, routes, strict=True)
    }
    return WindowRequests(prompts, requests, policy_version=0, wanted=wanted)


class Shuffled(FakeScorer):
    """Answers after a while that only its seed knows."""

    seed: int = Field(0, description="Of the whiles.")

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        order = np.random.default_rng([self.seed, len(self.seen)])
        await asyncio.sleep(order.random() * 0.002)
        async for score in super().score([requests[i] for i in order.permutation(len(requests))]):
            yield score


class Whole(Shuffled):
    """Wants all at once."""

    whole_windows: ClassVar[bool] = True
    _calls: list[list[ScoreRequest]] = PrivateAttr(default_factory=list)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        self._calls.append(list(requests))
        async for score in super().score(requests):
            yield score


def scheduler(t: Scorer, u: Scorer) -> tuple[Scheduler, list[PhaseProgress]]:
    heard: list[PhaseProgress] = []
    for name, scorer in (("t", t), ("u", u)):
        scorer.bind(make_teacher(name))
    return Scheduler(FakeStudent(), {"t": t, "u": u}, heard.append), heard


def expected(teacher: str, ids: np.ndarray) -> np.ndarray:
    logits = np.zeros(ByteTokenizer.size, np.float32)
    logits[list(LIKES[teacher].encode())] = 3.0
    logprobs: np.ndarray = log_softmax(logits)[ids]
    return logprobs


def require_united(scored: ScoredRollout, union: str) -> None:
    count = len(scored.rollout.token_ids)
    for teacher, score in scored.scores.items():
        assert score.request.topk == 2
        assert score.request.at_ids is not None
        assert score.request.at_ids.tolist() == [list(union.encode())] * count
        assert score.arrays["topk_ids"].tolist() == [list(LIKES[teacher].encode())] * count
        np.testing.assert_array_equal(score.arrays["topk_logprobs"], expected(teacher, score.arrays["topk_ids"]))
        np.testing.assert_array_equal(score.arrays["at_logprobs"], expected(teacher, score.request.at_ids))
        np.testing.assert_array_equal(score.logprobs, expected(teacher, scored.rollout.token_ids))


class FailsSecond(FakeScorer):
    """Cannot answer the second round of one completion, nor the first of another."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            if request.key.sample and request.key.row_id == ROWS[0 if request.topk else 1].row_id:
                yield Failure(request, f"topk {request.topk}", retryable=True)
            else:
                async for score in super().score([request]):
                    yield score
