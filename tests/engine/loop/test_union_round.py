"""Several teachers of a row: each says what it makes of the others' top-K, once all have given theirs."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from distillkit.loop.outcomes import Outcomes, WindowRequests
from distillkit.loop.wanted import Wanted
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.run_directory.codec import from_json, to_json
from distillkit.run_directory.rollout_codec import InFlight
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.types import Route, SampleRequest
from engine.loop.union_windows import BOTH, LIKES, FailsSecond, Shuffled, Whole, requests_of, require_united, scheduler
from engine.run_directory.same_fields import assert_same


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
