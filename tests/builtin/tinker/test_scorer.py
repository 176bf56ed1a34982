"""Scorer `tinker` on a stand-in of the SDK: what it asks for, what it makes of answers, what becomes of failures."""

import asyncio
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import PROMPT

from builtin.http.serving import RESPONSE, needing, outcomes, score_requests, table_at, truth
from builtin.tinker.fake_sdk import StatusError
from builtin.tinker.scorers import MODEL, Fake, opened, scorer, scores
from distillkit.errors import AlignmentError, RunFailedError
from distillkit.records import Failure, Score
from distillkit.testing import check_plugin


@pytest.mark.parametrize("old_sdk", [False, True], ids=["0.38", "0.25"])
@pytest.mark.parametrize("leading", [0, 1])
async def test_scores_are_those_of_exactly_the_sampled_tokens(fake: Fake, old_sdk: bool, leading: int) -> None:
    server = fake(old_sdk=old_sdk, leading=leading)
    (outcome,) = await scores(scorer())
    assert isinstance(outcome, Score)
    np.testing.assert_allclose(outcome.logprobs, truth(), rtol=1e-6)
    asked = server.asked[-1]
    assert asked["ids"] == [*PROMPT, *RESPONSE]
    assert (asked["num_samples"], asked["include_prompt_logprobs"], asked["topk_prompt_logprobs"]) == (1, True, 0)
    assert asked["params"] == {"max_tokens": 1, "seed": 0, "temperature": 1.0, "top_k": -1, "top_p": 1.0}


async def test_more_than_the_sampled_token_comes_with_it_where_the_loss_needs_it(fake: Fake) -> None:
    fake()
    ids = [[80, 1], [-1, 2], [7, -1], [3, 4], [200, 5], [-1, -1]]
    (outcome,) = await scores(scorer(), needing(topk=3, at_ids=2), topk=3, at_ids=ids)
    assert isinstance(outcome, Score)
    np.testing.assert_allclose(outcome.arrays["at_logprobs"], table_at(ids), rtol=1e-6)
    np.testing.assert_allclose(outcome.arrays["topk_logprobs"], table_at(outcome.arrays["topk_ids"]), rtol=1e-6)
    assert (outcome.arrays["topk_logprobs"][:, 0] >= outcome.logprobs).all()


async def test_a_logprob_that_goes_missing_later_ends_the_run(fake: Fake) -> None:
    server, plugin = fake(), scorer()

    def spoil(answer: Any) -> Any:
        answer.prompt_logprobs = [*answer.prompt_logprobs[:-1], None]
        return answer

    async with opened(plugin):
        server.spoil = spoil
        with pytest.raises(AlignmentError, match=r"by teacher 'teacher' at http://tinker.test: .* token 5 is missing"):
            await outcomes(plugin, score_requests())


FAILURES: list[tuple[BaseException, bool, str]] = [
    (StatusError(400, "too long"), False, "HTTP 400: too long"),
    (StatusError(500, "oops"), True, "HTTP 500: oops"),
    (TimeoutError(), True, "no response within 600 s (timeouts.request)"),
    (RuntimeError("it may predate this feature"), True, "may predate"),
]


@pytest.mark.parametrize(("error", "retryable", "reason"), FAILURES, ids=repr)
async def test_a_request_that_fails_is_lost_alone_and_sent_once(
    fake: Fake, error: BaseException, retryable: bool, reason: str
) -> None:
    server, plugin = fake(), scorer()
    async with opened(plugin):
        before = len(server.asked)
        server.errors = [error]
        found = await outcomes(plugin, score_requests(3))
        assert len(server.asked) == before + 3
    (failure,) = [outcome for outcome in found if isinstance(outcome, Failure)]
    assert failure.retryable is retryable
    assert reason in failure.reason


async def test_a_refused_key_ends_the_run(fake: Fake) -> None:
    server, plugin = fake(), scorer()
    async with opened(plugin):
        server.errors = [StatusError(401, "no such key")]
        with pytest.raises(RunFailedError, match=r"refuses requests: .*no such key"):
            await outcomes(plugin, score_requests())


async def test_no_request_is_waited_for_longer_than_the_limit_and_it_is_cancelled_then(fake: Fake) -> None:
    server, plugin = fake(), scorer(timeouts={"request": 0.05})
    async with opened(plugin):
        server.errors = ["hang"]
        (failure,) = await outcomes(plugin, score_requests())
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert "no response within 0.05 s" in failure.reason
    assert server.cancelled == 1


async def test_no_more_requests_are_under_way_than_the_limit(fake: Fake) -> None:
    server, plugin = fake(), scorer(concurrency={"max": 2})
    async with opened(plugin):
        server.most_in_flight = 0
        await outcomes(plugin, score_requests(9))
        slug = plugin.teacher.slug
        assert plugin.metrics() == {f"concurrency/{slug}/window": 2.0, f"concurrency/{slug}/inflight": 2.0}
    assert server.most_in_flight == 2


async def test_routes_to_one_model_share_one_client_and_the_first_has_the_metrics(fake: Fake) -> None:
    server = fake()
    first, second = scorer(name="a"), scorer(name="b")
    async with opened(first, second):
        asked = len(server.asked)
        for plugin in (first, second):
            (outcome,) = await outcomes(plugin, score_requests())
            assert isinstance(outcome, Score)
        assert len(server.asked) == asked + 2
        assert first.metrics()
        assert not second.metrics()
    assert server.clients == [{"model_path": None, "base_model": MODEL}]
    assert server.closed == ["success"]


async def test_whoever_stops_reading_stops_the_requests(fake: Fake) -> None:
    server, plugin = fake(), scorer()
    async with opened(plugin):
        server.errors = ["hang"] * 3

        async def read() -> list[Any]:
            return [outcome async for outcome in plugin.score(score_requests(3))]

        reading = asyncio.create_task(read())
        while server.errors:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert server.cancelled == 3


def test_it_keeps_the_contract_of_its_role(fake: Fake) -> None:
    fake()
    check_plugin(scorer())
