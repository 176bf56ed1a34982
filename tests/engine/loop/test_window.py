"""A window of completions, sampled and scored: its order, what fails in it, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.types import Route, SampleRequest
from engine.loop.windows import LateStudent, odd, requests_of, scheduler


class SlowScorer(FakeScorer):
    """Takes a while, the first ones longest."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        await asyncio.sleep(0.02 / (1 + requests[0].key.sample))
        async for score in super().score(requests):
            yield score


class WindowScorer(FakeScorer):
    """Wants all at once."""

    whole_windows: ClassVar[bool] = True


async def test_results_are_in_data_order_whatever_the_order_of_arrival() -> None:
    requests = requests_of()
    runner, _ = scheduler(LateStudent(), SlowScorer())
    outcomes = await runner.start(requests).finished()
    assert [one.key for one in outcomes.scored] == [request.key for request in requests.samples]
    assert not outcomes.lost


async def test_each_completion_is_scored_by_its_routed_teacher_and_no_other() -> None:
    routes = [Route.to("t"), Route.to("u"), Route.to("u"), Route.to("t")]
    first, second = FakeScorer(), WindowScorer()
    runner, heard = scheduler(LateStudent(), first, second)
    await runner.start(requests_of(routes)).finished()
    lines = [sorted({int(request.key.row_id.split("-")[0]) for request in scorer.seen}) for scorer in (first, second)]
    assert lines == [[1, 4], [2, 3]]
    assert len(first.seen) + len(second.seen) == 8
    assert [event.done for event in heard if event.phase == "sample"] == list(range(1, 9))
    assert max(event.done for event in heard if event.phase == "score") == 8


async def test_a_scorer_that_wants_whole_windows_gets_data_order() -> None:
    scorer = WindowScorer()
    runner, _ = scheduler(LateStudent(), scorer)
    requests = requests_of()
    await runner.start(requests).finished()
    assert [request.key for request in scorer.seen] == [request.key for request in requests.samples]


async def test_a_row_may_have_several_teachers() -> None:
    runner, _ = scheduler(FakeStudent(), FakeScorer(), FakeScorer())
    outcomes = await runner.start(requests_of([Route({"t": 0.5, "u": 0.5})] * 4)).finished()
    assert all(set(one.scores) == {"t", "u"} for one in outcomes.scored)


async def test_failures_are_kept_with_their_reason_and_teacher() -> None:
    scorer = odd(lambda s: [Failure(s.request, "busy", retryable=True)] if s.request.key.sample else [s])()
    runner, _ = scheduler(FakeStudent(), scorer)
    outcomes = await runner.start(requests_of()).finished()
    assert len(outcomes.scored) == 4
    assert {(one.stage, one.reason, one.retryable, one.teacher) for one in outcomes.lost} == {
        ("score", "busy", True, "t")
    }


async def test_an_exception_of_a_plugin_ends_the_window_as_it_is() -> None:
    class Broken(FakeScorer):
        """Raises."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            raise ZeroDivisionError("a bug")
            yield

    runner, _ = scheduler(FakeStudent(), Broken())
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await runner.start(requests_of()).finished()
    assert runner.inflight.inflight == {"t": 0}


async def test_a_cancelled_window_stops() -> None:
    runner, _ = scheduler(FakeStudent(), SlowScorer())
    window = runner.start(requests_of())
    await asyncio.sleep(0)
    lost = (await window.abandon("the run ended")).lost
    assert [loss.key for loss in lost] == [request.key for request in window.requests.samples]
    assert {loss.reason for loss in lost} == {"the run ended"}
    with pytest.raises(asyncio.CancelledError):
        await window.finished()


async def test_an_abandoned_window_says_how_far_each_completion_came_and_keeps_what_failed_by_itself() -> None:
    stuck = asyncio.Event()

    class Some(FakeStudent):
        """Samples three of eight, one of which fails, and waits for ever."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            yield Failure(requests[0], "no luck", retryable=True)
            async for rollout in super().sample(requests[1:3]):
                yield rollout
            stuck.set()
            await asyncio.Event().wait()

    class First(FakeScorer):
        """Scores the first that it is asked for."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            if self.seen:
                await asyncio.Event().wait()
            async for score in super().score(requests):
                yield score

    runner, heard = scheduler(Some(), First())
    window = runner.start(requests_of())
    await stuck.wait()
    while not any(event.phase == "score" for event in heard):
        await asyncio.sleep(0)
    lost = (await window.abandon("the run ended")).lost
    assert [loss.stage for loss in lost] == ["sample", "train", "score"] + ["sample"] * 5
    assert [loss.reason for loss in lost] == ["no luck"] + ["the run ended"] * 7


async def test_a_second_failure_is_noted_on_the_first(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeScorer):
        """Raises, once all are asked."""

        kind: ClassVar[type[Exception]] = ZeroDivisionError
        barrier: ClassVar[asyncio.Event]

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            try:
                await asyncio.Event().wait()
            finally:
                raise OSError("could not let go")
            yield

    class Failing(FakeScorer):
        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            raise ZeroDivisionError("a bug")
            yield

    runner, _ = scheduler(FakeStudent(), Broken(), Failing())
    routes = [Route.to("t"), Route.to("t"), Route.to("t"), Route.to("u")]
    with pytest.raises((ZeroDivisionError, OSError)) as caught:
        await runner.start(requests_of(routes)).finished()
    text = " ".join([str(caught.value), *caught.value.__notes__])
    assert "a bug" in text
    assert "could not let go" in text
    assert "could not let go" in caplog.text


async def test_rescoring_keeps_the_rollouts() -> None:
    runner, _ = scheduler(FakeStudent(), FakeScorer())
    requests = replace(requests_of(), policy_version=None)
    first = await runner.start(requests).finished()
    rollouts = [one.rollout for one in first.scored]
    again = await runner.rescore(requests, rollouts).finished()
    assert [one.rollout for one in again.scored] == rollouts
