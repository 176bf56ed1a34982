"""Scorer `http` between open and close: what becomes of each request."""

import asyncio
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, PROMPT, Serve

from builtin.http.serving import needing, opened, outcomes, score_requests, scorer, truth
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Score
from distillkit.testing import check_plugin
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor


@pytest.mark.parametrize("flavor", ["vllm", "echo", "sglang"])
def test_it_keeps_the_contract_of_its_role(serve: Serve, flavor: Any) -> None:
    server = serve(flavor=Flavor(flavor))
    check_plugin(scorer(server, dialect="sglang" if flavor == "sglang" else "auto"))


RETRIED = [
    *(faults.Status(status) for status in (408, 425, 429, 500, 502, 503, 504)),
    faults.Status(429, retry_after=0.1),
    faults.Hang(),
    faults.Delay(0.4),
    faults.Hangup(),
    faults.ShortBody(),
    faults.Garbage(),
]


@pytest.mark.parametrize("fault", RETRIED, ids=repr)
async def test_what_may_go_away_is_tried_again(serve: Serve, fault: Any) -> None:
    server, late = serve(), isinstance(fault, faults.Hang | faults.Delay)
    async with opened(scorer(server, timeouts={"request": 0.2 if late else 60.0})) as plugin:
        server.faults.add(fault, where=COMPLETIONS, times=2)
        plugin.metrics()
        for score in await outcomes(plugin, score_requests(4)):
            assert isinstance(score, Score)
            np.testing.assert_array_equal(score.logprobs, truth())
        retries = plugin.metrics()[f"concurrency/{plugin.teacher.slug}/retries"]
    assert retries >= 2 if late else retries == 2  # on a busy machine right answers may be late, too
    assert server.faults.pending == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (faults.Status(503, retry_after=7), "HTTP 503: injected fault"),
        (faults.Hang(), "no answer within 0.5 s"),
        (faults.Hangup(), "server disconnected without sending a response"),
        (faults.Garbage(), "that is no JSON"),
    ],
    ids=repr,
)
async def test_what_does_not_go_away_is_a_failure_that_says_so(serve: Serve, fault: Any, reason: str) -> None:
    server, seconds = serve(), 0.5 if isinstance(fault, faults.Hang) else 60.0
    async with opened(scorer(server, timeouts={"request": seconds, "retry": 0.3})) as plugin:
        server.faults.add(fault, where=COMPLETIONS, times=None)
        (failure,) = await outcomes(plugin, score_requests())
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert reason in failure.reason.replace("Server", "server")
    assert server.url in failure.reason
    assert "of the 0.3 s of timeouts.retry" in failure.reason


@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_request_that_is_refused_is_a_failure_in_the_servers_words(serve: Serve, status: int) -> None:
    server = serve()
    async with opened(scorer(server)) as plugin:
        server.faults.add(faults.Status(status), where=COMPLETIONS)
        found = await outcomes(plugin, score_requests(3))
    (failure,) = [outcome for outcome in found if isinstance(outcome, Failure)]
    assert failure.reason == f"{server.url} answered {status}: injected fault"
    assert not failure.retryable
    assert server.traffic.counts[COMPLETIONS] == 4


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the key"), (403, "does not allow this, by this key or at all")]
)
async def test_a_key_that_is_refused_ends_the_run_and_is_not_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "secret-key")
    server = serve(api_key="secret-key")
    async with opened(scorer(server, api_key_env="TEACHER_KEY")) as plugin:
        server.faults.add(faults.Status(status, body={"error": "expired: secret-key"}), where=COMPLETIONS)
        with pytest.raises(RunFailedError, match=rf"^{server.url} {said}: expired: \*\*\*$"):
            await outcomes(plugin, score_requests())


async def test_a_prompt_that_is_too_long_is_a_failure_in_vllms_words(serve: Serve) -> None:
    async with opened(scorer(serve(context_length=80))) as plugin:
        (failure,) = await outcomes(plugin, score_requests(prompt=PROMPT * 16))
    assert "maximum context length is 80 tokens" in failure.reason


async def test_whoever_stops_reading_stops_the_requests(serve: Serve) -> None:
    server = serve(delay=0.02)
    async with opened(scorer(server, concurrency={"initial": 2, "max": 2})) as plugin:
        before = server.traffic.counts[COMPLETIONS]
        outcomes = plugin.score(score_requests(60))
        await anext(outcomes)
        await outcomes.aclose()
        seen = server.traffic.counts[COMPLETIONS]
        await asyncio.sleep(0.1)
        assert server.traffic.counts[COMPLETIONS] <= seen + 2
    assert seen - before < 10


async def test_no_more_is_sent_at_once_than_the_option_says(serve: Serve) -> None:
    server = serve(delay=0.01)
    async with opened(scorer(server, concurrency={"initial": 3, "max": 3})) as plugin:
        await outcomes(plugin, score_requests(20))
        metrics = plugin.metrics()
    assert server.traffic.most_at_once <= 3
    assert metrics[f"concurrency/{plugin.teacher.slug}/inflight"] == 3


def test_it_offers_topk_up_to_the_servers_limit(serve: Serve) -> None:
    server = serve()
    assert scorer(server, dialect="echo").capabilities() == {"sampled": None, "topk": 20}
    assert scorer(server, dialect="sglang", max_logprobs=None).capabilities() == {"sampled": None, "topk": None}
    assert scorer(server, max_logprobs=5).capabilities() == {"sampled": None, "topk": 5, "at_ids": None}


async def test_more_topk_than_the_server_gives_is_refused_at_open_with_its_flag(serve: Serve) -> None:
    with pytest.raises(ValueError, match="greater than max allowed: 20") as caught:
        async with opened(scorer(serve(), max_logprobs=32), needing(topk=21)):
            pass
    assert "start vLLM with --max-logprobs 21 and set max_logprobs: 21" in str(caught.value)
    async with opened(scorer(serve(), max_logprobs=32), needing(topk=20)):
        pass


async def test_it_is_used_only_while_it_is_open(serve: Serve) -> None:
    plugin = scorer(serve())
    assert plugin.metrics() == {}
    with pytest.raises(RuntimeError, match="before open"):
        await outcomes(plugin, score_requests())
    async with opened(plugin):
        pass
    await plugin.close()
    with pytest.raises(RuntimeError, match="after close"):
        await outcomes(plugin, score_requests())
