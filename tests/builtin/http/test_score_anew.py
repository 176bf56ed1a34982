"""A probe asks one replica, and around the cache; what it computed is kept by nobody."""

from pathlib import Path

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import bodies, opened, score_requests, scorer, truth
from distillkit.records import Failure, Score
from distillkit.roles.scorer import ScoresAnew
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_loopback.openai import faults


async def test_only_the_replica_that_was_named_is_asked_whatever_the_others_do(serve: Serve) -> None:
    servers = [serve() for _ in range(3)]
    async with opened(scorer(*servers, concurrency={"initial": 2, "max": 2})) as plugin:
        assert isinstance(plugin, ScoresAnew)
        assert list(plugin.replicas()) == [server.url for server in servers]
        before = [len(bodies(server)) for server in servers]
        servers[1].faults.add(faults.Status(503), where=COMPLETIONS, times=1)  # it is tried again there
        found = [score async for score in plugin.score_anew(score_requests(6), servers[1].url)]
    assert [len(bodies(server)) - count for server, count in zip(servers, before, strict=True)] == [0, 7, 0]
    for score in found:
        assert isinstance(score, Score)
        np.testing.assert_array_equal(score.logprobs, truth())


async def test_no_score_is_read_from_the_cache_or_kept_in_it(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    async with opened(scorer(server, cache=str(tmp_path / "scores.sqlite"))) as plugin:
        before = len(bodies(server))
        for _ in range(2):
            assert len([score async for score in plugin.score_anew(score_requests(3), server.url)]) == 3
        assert len(bodies(server)) - before == 6
        assert plugin.metrics()[f"cache/{plugin.teacher.slug}/misses"] == 0.0
        assert len([score async for score in plugin.score(score_requests(1))]) == 1
        assert plugin.metrics()[f"cache/{plugin.teacher.slug}/misses"] == 1.0
        assert len([score async for score in plugin.score_anew(score_requests(1), server.url)]) == 1
        assert len(bodies(server)) - before == 8


async def test_a_replica_that_is_down_fails_alone(serve: Serve) -> None:
    up, down = serve(), serve()
    async with opened(scorer(up, down, timeouts={"retry": 0.2, "hedge_after": 0.01})) as plugin:
        down.faults.add(faults.Status(503), where=COMPLETIONS, times=None)
        before = len(bodies(up))
        (failure,) = [outcome async for outcome in plugin.score_anew(score_requests(), down.url)]
        assert isinstance(failure, Failure)
        assert down.url in failure.reason
        assert len(bodies(up)) == before
        (score,) = [outcome async for outcome in plugin.score_anew(score_requests(), up.url)]
        assert isinstance(score, Score)


async def test_a_server_of_another_address_is_no_replica(serve: Serve) -> None:
    async with opened(scorer(serve())) as plugin:
        with pytest.raises(ValueError, match="is not a replica of"):
            [outcome async for outcome in plugin.score_anew(score_requests(), "http://elsewhere")]


def test_the_class_has_it_before_it_is_open() -> None:
    assert isinstance(HttpScorer(base_url=["http://a", "http://b/v1"]), ScoresAnew)
    assert list(HttpScorer(base_url=["http://a", "http://b/v1"]).replicas()) == ["http://a", "http://b"]
