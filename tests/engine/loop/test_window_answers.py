"""What samplers and scorers answer in a window: of wrong number, of other versions, ids or ends."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from pydantic import Field

from distillkit.data.turn_end_maps import TurnEndMap, TurnEndMaps
from distillkit.errors import PluginError
from distillkit.loop.outcomes import WindowRequests
from distillkit.loop.sample_and_score import sample_all
from distillkit.loop.window import Scheduler
from distillkit.records import Failure, Rollout, Weights
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent, make_rollout
from distillkit.types import SampleRequest, SamplingParams
from engine.loop.windows import ROWS, odd, requests_of, scheduler


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


async def test_two_versions_of_a_teacher_in_one_window_are_an_error() -> None:
    versions = iter(range(100))
    scorer = odd(lambda score: [replace(score, version=next(versions))])()
    runner, _ = scheduler(FakeStudent(), scorer)
    with pytest.raises(PluginError, match="teacher 't' scored one window with two versions of itself"):
        await runner.start(requests_of()).finished()


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
