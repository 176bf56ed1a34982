"""Several teachers of a row: each says what it makes of the others' top-K, once all have given theirs."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, TypeVar

import numpy as np
import pytest
from pydantic import Field, PrivateAttr

from distillkit import Loss, Scorer, Weighting
from distillkit.errors import AlignmentError, PluginError
from distillkit.events import PhaseProgress
from distillkit.loop.outcomes import Outcomes, WindowRequests
from distillkit.loop.wanted import Wanted
from distillkit.loop.window import Scheduler
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.run_directory.codec import from_json, to_json
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent, make_request, make_row, make_teacher
from distillkit.testing.fakes import log_softmax
from distillkit.types import Prompts, Route, SampleRequest
from engine.run_directory.test_codec import assert_same

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


@pytest.mark.parametrize("kinds", [(Shuffled, Shuffled), (Shuffled, Whole), (Whole, Shuffled), (Whole, Whole)])
@pytest.mark.parametrize("seed", [0, 1])
async def test_each_teacher_says_what_it_makes_of_the_union_whatever_the_order(
    kinds: tuple[type[Shuffled], type[Shuffled]], seed: int
) -> None:
    scorers = [kind(likes=LIKES[name], seed=seed + at) for at, (kind, name) in enumerate(zip(kinds, "tu", strict=True))]
    runner, heard = scheduler(*scorers)
    requests = requests_of(BOTH)
    outcomes = await runner.start(requests).finished()
    assert [scored.key for scored in outcomes.scored] == [request.key for request in requests.samples]
    for scored in outcomes.scored:
        require_united(scored, "ABC")
    for scorer in scorers:
        rounds = [(request.topk, request.at_ids is not None) for request in scorer.seen]
        assert sorted(rounds) == [(0, True)] * 8 + [(2, False)] * 8  # nothing is computed twice
        for call in scorer._calls if isinstance(scorer, Whole) else ():
            assert [request.key for request in call] == [request.key for request in requests.samples]
        assert len(scorer._calls) == 2 if isinstance(scorer, Whole) else True
    assert runner.inflight.inflight == {"t": 0, "u": 0}
    done = [(event.done, event.total) for event in heard if event.phase == "score"]
    assert sorted(done)[-1] == (32, 32)
    assert len(done) == 32


async def test_one_teacher_is_asked_once_and_says_what_it_makes_of_the_samplers_ids() -> None:
    wanted = Wanted({"topk": 5}, {"topk": 2, "at_ids": 1}, 3, 2)
    t, u = FakeScorer(likes="AB"), FakeScorer(likes="BC")
    runner, _ = scheduler(t, u)
    routes = [Route.to("t"), Route.to("u"), Route({"t": 0.5, "u": 0.5}), Route.to("t")]
    outcomes = await runner.start(requests_of(wanted, routes)).finished()
    assert len(outcomes.scored) == 8
    for scored in outcomes.scored:
        sampled = scored.rollout.arrays["topk_ids"][:, :3]  # of five: two more are for somebody else
        assert sampled.tolist()[0] == [0, 1, 2]
        for score in scored.scores.values():
            assert score.request.at_ids is not None
            union = np.sort([*sampled[0], *b"ABC"]) if len(scored.scores) == 2 else sampled[0]
            assert score.request.at_ids.tolist() == [union.tolist()] * len(sampled)
    assert len(t.seen) == 4 + 2 * 2
    assert len(u.seen) == 2 + 2 * 2


Answer = TypeVar("Answer", Rollout, Score)


def with_a_row_beyond(value: Answer) -> Answer:
    if "topk_ids" not in value.arrays:
        return value
    ids = value.arrays["topk_ids"].copy()
    ids[:, -1] = ByteTokenizer.size
    return replace(value, arrays={**value.arrays, "topk_ids": ids})


class PaddedScorer(FakeScorer):
    """Its head has a row that no token has, which is among its top-K."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            yield with_a_row_beyond(score) if isinstance(score, Score) else score


class PaddedStudent(FakeStudent):
    """As the scorer."""

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in super().sample(requests):
            yield with_a_row_beyond(rollout) if isinstance(rollout, Rollout) else rollout


async def test_ids_that_the_students_tokenizer_lacks_are_none_of_any_top_k() -> None:
    """No student has a probability of theirs: a look at it would read past the head."""
    runner, _ = scheduler(PaddedScorer(likes="AB"), FakeScorer(likes="BC"))
    runner.sampler, runner.vocabulary = PaddedStudent(), ByteTokenizer.size
    outcomes = await runner.start(requests_of(Wanted({"topk": 3}, {"topk": 2, "at_ids": 1}, 3, 2))).finished()
    assert len(outcomes.scored) == 8
    for scored in outcomes.scored:
        assert scored.rollout.arrays["topk_ids"][0].tolist() == [0, 1, -1]
        arrays = scored.scores["t"].arrays
        assert arrays["topk_ids"][0].tolist() == [ord("A"), -1]
        assert arrays["topk_logprobs"][0, 1] == -np.inf
        asked = scored.scores["u"].request.at_ids
        assert asked is not None
        assert asked[0].tolist() == [0, 1, *b"ABC"]


async def test_without_at_ids_or_topk_there_is_one_round() -> None:
    for wanted in (Wanted({}, {"topk": 2}), Wanted({"topk": 2}, {"at_ids": 1}, 2, 0), Wanted()):
        t, u = FakeScorer(likes="AB"), FakeScorer(likes="BC")
        runner, _ = scheduler(t, u)
        assert len((await runner.start(requests_of(wanted)).finished()).scored) == 8
        assert len(t.seen) == len(u.seen) == 8


class FailsSecond(FakeScorer):
    """Cannot answer the second round of one completion, nor the first of another."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            if request.key.sample and request.key.row_id == ROWS[0 if request.topk else 1].row_id:
                yield Failure(request, f"topk {request.topk}", retryable=True)
            else:
                async for score in super().score([request]):
                    yield score


async def test_a_failure_of_either_round_loses_that_completion_alone() -> None:
    t = Whole(likes="AB")
    runner, heard = scheduler(t, FailsSecond(likes="BC"))
    outcomes = await runner.start(requests_of(BOTH)).finished()
    assert {(lost.key.row_id, lost.stage, lost.reason, lost.retryable, lost.teacher) for lost in outcomes.lost} == {
        (ROWS[0].row_id, "score", "topk 2", True, "u"),
        (ROWS[1].row_id, "score", "topk 0", True, "u"),
    }
    assert len(outcomes.scored) == 6
    assert len(outcomes.rollouts) == 8
    for scored in outcomes.scored:
        require_united(scored, "ABC")
    assert runner.inflight.inflight == {"t": 0, "u": 0}
    assert len(t.seen) == 8 + 7  # what was lost in the first round is not asked for again
    assert max(event.done for event in heard if event.phase == "score") == 8 + 7 + 7 + 6


async def test_an_abandoned_window_is_not_scored_before_its_second_round() -> None:
    class Stuck(FakeScorer):
        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            if not requests[0].topk:
                await asyncio.Event().wait()
            async for score in super().score(requests):
                yield score

    stuck = Stuck(likes="BC")
    runner, _ = scheduler(FakeScorer(likes="AB"), stuck)
    window = runner.start(requests_of(BOTH))
    while runner.inflight.inflight != {"t": 0, "u": 8} or len(stuck.seen) < 8:
        await asyncio.sleep(0)
    outcomes = await window.abandon("the run ended")
    assert [lost.stage for lost in outcomes.lost] == ["score"] * 8
    assert runner.inflight.inflight == {"t": 0, "u": 0}


async def test_an_answer_to_another_question_is_an_error() -> None:
    class Forgetful(FakeScorer):
        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            async for score in super().score([replace(request, topk=0, at_ids=None) for request in requests]):
                yield score

    runner, _ = scheduler(FakeScorer(), Forgetful())
    with pytest.raises(PluginError, match="whose `request` is not the one that it was asked"):
        await runner.start(requests_of(BOTH)).finished()


async def test_a_score_without_the_arrays_that_were_asked_for_is_an_error() -> None:
    class Bare(FakeScorer):
        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            for request in requests:
                yield Score(request, np.full(len(request.token_ids), -1.0, np.float32), None)

    runner, _ = scheduler(FakeScorer(), Bare())
    with pytest.raises(AlignmentError, match="'topk_ids', which was wanted of it"):
        await runner.start(requests_of(BOTH)).finished()


class SamplerOfFew(FakeStudent):
    """Knows one id only at the first position, so that unions are of different widths."""

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for rollout in super().sample(requests):
            assert isinstance(rollout, Rollout)
            ids, logprobs = rollout.arrays["topk_ids"].copy(), rollout.arrays["topk_logprobs"].copy()
            ids[0, 1:], logprobs[0, 1:] = -1, -np.inf
            yield replace(rollout, arrays={**rollout.arrays, "topk_ids": ids, "topk_logprobs": logprobs})


async def in_flight() -> tuple[WindowRequests, Outcomes]:
    wanted = Wanted({"topk": 3, "entropy": 1}, {"topk": 2, "at_ids": 1}, 3, 2)
    runner, _ = scheduler(FakeScorer(likes="AB", strength=1 / 3), FailsSecond(likes="BC", strength=1 / 7))
    runner.sampler = SamplerOfFew()
    requests = requests_of(wanted)
    return requests, await runner.start(requests).finished()


async def test_what_a_checkpoint_holds_of_it_comes_back_to_the_last_bit() -> None:
    requests, outcomes = await in_flight()
    first = outcomes.scored[0].scores["t"]
    assert first.request.at_ids is not None
    assert first.request.at_ids[0].tolist() == [0, 65, 66, 67, -1, -1]
    assert first.arrays["at_logprobs"][0, 4] == -np.inf
    text = json.dumps(to_json(InFlight.of(requests, outcomes)), allow_nan=False)
    again = from_json(InFlight, json.loads(text)).for_requests(requests)
    assert again is not None
    assert_same(again, outcomes)
    for one, other in zip(again.scored, outcomes.scored, strict=True):
        for teacher, score in one.scores.items():
            for name, array in other.scores[teacher].arrays.items():
                assert score.arrays[name].dtype == array.dtype
                assert score.arrays[name].tobytes() == array.tobytes(), name
        for name, array in other.rollout.arrays.items():
            assert one.rollout.arrays[name].tobytes() == array.tobytes(), name


class Needs(Loss):
    """Needs what it is told to."""

    of_scorers: dict[str, int] = Field(default_factory=dict, description="Of scorers.")
    of_sampler: dict[str, int] = Field(default_factory=dict, description="Of the sampler.")

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, **self.of_scorers}

    def sampler_needs(self) -> Mapping[str, int]:
        return self.of_sampler


class Weighs(Weighting):
    """Wants more of the same."""

    name: ClassVar[str] = "weighs"

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[np.ndarray]:
        return [np.ones(len(scored.rollout.token_ids)) for scored in step]

    def needs(self) -> Mapping[str, int]:
        return {"topk": 20}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 30, "entropy": 1}


def wanted_by(loss: Loss, *weightings: Weighting) -> Wanted:
    from types import SimpleNamespace

    return Wanted.by(SimpleNamespace(loss=loss, train=SimpleNamespace(weightings=weightings)))  # type: ignore[arg-type]


def test_what_others_want_does_not_change_the_ids_of_the_loss() -> None:
    class Named(Needs):
        name: ClassVar[str] = "named"

    loss = Named(of_scorers={"topk": 4, "at_ids": 1}, of_sampler={"topk": 6})
    assert wanted_by(loss, Weighs()) == Wanted({"topk": 30, "entropy": 1}, {"topk": 20, "at_ids": 1}, 6, 4)
    assert wanted_by(Named(of_scorers={"topk": 4}), Weighs()) == Wanted({"topk": 30, "entropy": 1}, {"topk": 20})
    assert wanted_by(Named()) == Wanted()
