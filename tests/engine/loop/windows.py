"""Requests of one window, and a scheduler that answers them by fakes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from distillkit import Scorer
from distillkit.events import PhaseProgress
from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.window import Scheduler
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent, make_request, make_row, make_teacher
from distillkit.types import Prompts, Route, SampleRequest

ROWS = [make_row(f"question {line}", line=line) for line in range(1, 5)]


def requests_of(routes: Sequence[Route] = (), each: int = 2) -> WindowRequests:
    routes = routes or [Route.to("t")] * len(ROWS)
    requests = tuple(make_request(row, sample=i) for row in ROWS for i in range(each))
    prompt = requests[0].prompt_ids
    prompts = {
        (row.row_id, 0): Prompts(row, route, prompt, dict.fromkeys(route.teachers, prompt))
        for row, route in zip(ROWS, routes, strict=True)
    }
    return WindowRequests(prompts, requests, policy_version=0)


class LateStudent(FakeStudent):
    """Answers in the reverse order."""

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in super().sample(requests[::-1]):
            await asyncio.sleep(0)
            yield rollout


class OddScorer(FakeScorer):
    """Yields what `answers` makes of each score."""

    answers: ClassVar[staticmethod]

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            for answer in self.answers(score):
                yield answer


def odd(answers: object) -> type[OddScorer]:
    return type("Odd", (OddScorer,), {"answers": staticmethod(answers)})


def scheduler(student: FakeStudent, *scorers: Scorer) -> tuple[Scheduler, list[PhaseProgress]]:
    heard: list[PhaseProgress] = []
    named = dict(zip(["t", "u"], scorers, strict=False))
    for name, scorer in named.items():
        scorer.bind(make_teacher(name))
    return Scheduler(student, named, heard.append), heard
