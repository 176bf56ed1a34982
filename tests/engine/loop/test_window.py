import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
from pydantic import Field

from distillkit import Scorer
from distillkit.data.turn_end_maps import TurnEndMap, TurnEndMaps
from distillkit.errors import PluginError
from distillkit.events import PhaseProgress
from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.sample_and_score import sample_all
from distillkit.loop.window import Scheduler
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.testing import (
    ByteTokenizer,
    FakeScorer,
    FakeStudent,
    make_request,
    make_rollout,
    make_row,
    make_teacher,
)
from distillkit.types import Prompts, Route, SampleRequest, SamplingParams

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


class SlowScorer(FakeScorer):
    """Takes a while, the first ones longest."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        await asyncio.sleep(0.02 / (1 + requests[0].key.sample))
        async for score in super().score(requests):
            yield score


class WindowScorer(FakeScorer):
    """Wants all at once."""

    whole_windows: ClassVar[bool] = True


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


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (lambda score: [], "gave no outcome for 1 of 1 requests to teacher 't'"),
        (lambda score: [score, score], "answered row "),
    ],
)
async def test_a_scorer_owes_one_outcome_a_request(answers: object, message: str) -> None:
    runner, _ = scheduler(FakeStudent(), odd(answers)())
    with pytest.raises(PluginError, match=message):
        await runner.start(requests_of()).finished()


async def test_a_sampler_owes_one_outcome_a_request() -> None:
    class Silent(FakeStudent):
        """Answers half."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for rollout in super().sample(requests[::2]):
                yield rollout

    class Twice(FakeStudent):
        """Answers twice."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for rollout in super().sample([*requests, requests[0]]):
                yield rollout

    for student, message in ((Silent(), "no outcome for 4 of 8"), (Twice(), "twice, or was never asked")):
        runner, _ = scheduler(student, FakeScorer())
        with pytest.raises(PluginError, match=message):
            await runner.start(requests_of()).finished()


async def test_completions_of_another_policy_version_are_not_trained() -> None:
    student = FakeStudent()
    await student.sync(Weights(3, "live"))
    runner, _ = scheduler(student, FakeScorer())
    outcomes = await runner.start(requests_of()).finished()
    assert not outcomes.scored
    assert "sampled by policy version 3, this step trains version 0" in outcomes.lost[0].reason


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


async def test_two_versions_of_a_teacher_in_one_window_are_an_error() -> None:
    versions = iter(range(100))
    scorer = odd(lambda score: [replace(score, version=next(versions))])()
    runner, _ = scheduler(FakeStudent(), scorer)
    with pytest.raises(PluginError, match="teacher 't' scored one window with two versions of itself"):
        await runner.start(requests_of()).finished()


async def test_rescoring_keeps_the_rollouts() -> None:
    runner, _ = scheduler(FakeStudent(), FakeScorer())
    requests = replace(requests_of(), policy_version=None)
    first = await runner.start(requests).finished()
    rollouts = [one.rollout for one in first.scored]
    again = await runner.rescore(requests, rollouts).finished()
    assert [one.rollout for one in again.scored] == rollouts


class Foreign(FakeStudent):
    """Draws an id that is none."""

    unknown: int = Field(description="The id.")

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for one in super().sample(requests):
            assert isinstance(one, Rollout)
            if one.key.sample or one.key.row_id != ROWS[1].row_id:
                yield one
            else:
                ids = one.token_ids.copy()
                ids[3] = self.unknown
                yield replace(one, token_ids=ids)


@pytest.mark.parametrize("unknown", [258, -1, 2**40])
async def test_an_id_that_no_token_has_is_refused_with_row_and_position(unknown: int) -> None:
    student, requests, scorer = Foreign(unknown=unknown), requests_of(), FakeScorer()
    scheduler = Scheduler(student, {"t": scorer}, lambda event: None, ByteTokenizer.size)
    outcomes = await scheduler.start(requests).finished()
    (lost,) = outcomes.lost
    assert (lost.key.row_id, lost.key.sample, lost.stage, lost.retryable) == (ROWS[1].row_id, 0, "sample", False)
    assert f"token 3 is id {unknown}; the student's tokenizer has the ids 0 to 257" in lost.reason
    assert ROWS[1].row_id in lost.reason
    assert len(outcomes.scored) == len(requests.samples) - 1
    assert lost.key not in {request.key for request in scorer.seen}
    rollouts, gone = await sample_all(student, requests.samples, ByteTokenizer.size)
    assert [one.key for one in gone] == [lost.key]
    assert lost.key not in rollouts


class EndsAnyhow(FakeStudent):
    """Ends completions as `how` says."""

    how: str = Field(description="How.")

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        ids = {
            "end": ([65, 66, 257], "stop"),
            "stop string": ([65, 66, 90], "stop"),
            "limit": ([65, 66], "length"),
            "end at the limit": ([65, 257], "length"),
            "tool": ([65, 257, 66], "stop"),
            "goes on": ([65, 257, 66], "length"),
            "end left out": ([65, 66], "stop"),
        }
        sampled, reason = ids[self.how]
        mask = [True, True, False] if self.how == "tool" else None
        for request in requests:
            yield replace(make_rollout(sampled, mask=mask), request=request, finish_reason=reason)


def ending(requests: WindowRequests) -> WindowRequests:
    params = SamplingParams(16, stop=("BZ",), stop_ids=(257,))
    return replace(requests, samples=tuple(replace(request, params=params) for request in requests.samples))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("end", None),
        ("stop string", None),
        ("limit", None),
        ("end at the limit", None),
        ("tool", None),
        ("goes on", "goes on behind token 1, id 257, at which it was to end"),
        ("end left out", "its last token, id 66, is no end that the run knows"),
    ],
)
async def test_a_completion_that_did_not_end_where_it_was_to_is_lost(how: str, reason: str | None) -> None:
    scheduler = Scheduler(EndsAnyhow(how=how), {"t": FakeScorer()}, lambda event: None, ByteTokenizer.size)
    outcomes = await scheduler.start(ending(requests_of())).finished()
    if reason is None:
        assert len(outcomes.scored) == len(requests_of().samples)
        return
    assert {lost.stage for lost in outcomes.lost} == {"sample"}
    assert all(reason in lost.reason for lost in outcomes.lost)
    assert not outcomes.scored


async def test_a_teacher_whose_turns_end_otherwise_reads_its_own_end() -> None:
    scorer = FakeScorer(likes="A")
    maps = TurnEndMaps({"t": TurnEndMap((257,), ord("A"))})
    scheduler = Scheduler(EndsAnyhow(how="end"), {"t": scorer}, lambda event: None, ByteTokenizer.size, maps)
    outcomes = await scheduler.start(ending(requests_of())).finished()
    for scored in outcomes.scored:
        logprobs = scored.scores["t"].logprobs
        assert scored.rollout.token_ids.tolist() == [65, 66, 257]
        assert logprobs[2] > logprobs[1] == logprobs[0]  # its end is liked, and what is none for it is not
    assert {tuple(request.token_ids.tolist()) for request in scorer.seen} == {(257, 66, 65)}


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
