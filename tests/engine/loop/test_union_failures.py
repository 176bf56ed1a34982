"""Where a round of several teachers fails, or answers another question."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from distillkit.errors import AlignmentError, PluginError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import FakeScorer
from engine.loop.union_windows import BOTH, ROWS, FailsSecond, Whole, requests_of, require_united, scheduler


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
