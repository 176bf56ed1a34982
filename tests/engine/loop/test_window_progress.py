"""What sinks hear of a window while it is sampled and scored."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from distillkit.events import PhaseProgress
from distillkit.loop.window import Scheduler
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.types import SampleRequest
from engine.loop.windows import LateStudent, requests_of, scheduler


async def test_inflight_counts_say_what_is_unanswered() -> None:
    answer = asyncio.Event()

    class HeldScorer(FakeScorer):
        """Answers when it is told to."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            await answer.wait()
            async for score in super().score(requests):
                yield score

    runner, _ = scheduler(FakeStudent(), HeldScorer())
    requests = requests_of()
    window = runner.start(requests)
    await window.until_sampled()
    while runner.inflight.inflight["t"] < len(requests.samples):
        await asyncio.sleep(0)
    answer.set()
    await window.finished()
    assert runner.inflight.inflight["t"] == 0


async def test_progress_of_sampling_counts_answers_though_some_could_not_be_scored_meanwhile() -> None:
    class Failing(FakeScorer):
        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            for request in requests:
                yield Failure(request, "busy")

    told: list[PhaseProgress] = []
    scheduler = Scheduler(LateStudent(), {"t": Failing()}, told.append)
    await scheduler.start(requests_of()).finished()
    assert [one.done for one in told if one.phase == "sample"] == list(range(1, 9))
    assert {one.done for one in told if one.phase == "score"} == {0}


async def test_sinks_hear_of_every_third_of_400_completions_and_of_the_last() -> None:
    runner, heard = scheduler(FakeStudent(), FakeScorer())
    await runner.start(requests_of(each=100)).finished()
    sampled = [event.done for event in heard if event.phase == "sample"]
    assert sampled == [*range(3, 400, 3), 400]
    last = [event for event in heard if event.phase == "score"][-1]
    assert (last.done, last.total) == (400, 400)


async def test_sinks_hear_how_a_large_window_ends_though_its_last_completions_fail() -> None:
    class LastFail(FakeStudent):
        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for outcome in super().sample(requests[:398]):
                yield outcome
            for request in requests[398:]:
                yield Failure(request, "busy")

    runner, heard = scheduler(LastFail(), FakeScorer())
    await runner.start(requests_of(each=100)).finished()
    for phase, total in (("sample", 400), ("score", 398)):
        told = [event for event in heard if event.phase == phase]
        assert (told[-1].done, told[-1].total) == (398, total)
        assert told.count(told[-1]) == 1
