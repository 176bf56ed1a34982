"""Scorer `http` on several servers."""

import asyncio
import re

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import opened, outcomes, score_requests, scorer, truth
from distillkit.errors import AlignmentError
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.server import LoopbackServer


def shares(*servers: LoopbackServer) -> list[int]:
    return [server.traffic.counts.get(COMPLETIONS, 0) for server in servers]


async def test_requests_are_spread_over_replicas(serve: Serve) -> None:
    servers = [serve(delay=0.005), serve(delay=0.005)]
    async with opened(scorer(*servers)) as plugin:
        for server in servers:
            server.traffic.clear()
        for score in await outcomes(plugin, score_requests(40)):
            np.testing.assert_array_equal(score.logprobs, truth())
    assert sum(shares(*servers)) == 40
    assert min(shares(*servers)) > 0  # how they are shared is told on a virtual clock in tests/builtin/remote


async def test_a_replica_that_is_killed_loses_nothing(serve: Serve) -> None:
    killed, other = serve(delay=0.01), serve(delay=0.01)
    async with opened(scorer(killed, other, concurrency={"initial": 4})) as plugin:
        found = []
        async for outcome in plugin.score(score_requests(40)):
            found.append(outcome)
            if len(found) == 8:
                await asyncio.to_thread(killed.stop)
    assert len(found) == 40
    for outcome in found:
        np.testing.assert_array_equal(outcome.logprobs, truth())


async def test_the_replica_that_is_wrong_is_named(serve: Serve) -> None:
    right, wrong = serve(), serve()
    async with opened(scorer(right, wrong)) as plugin:
        wrong.faults.add(faults.BadLogprob(None), where=COMPLETIONS)
        with pytest.raises(AlignmentError, match=re.escape(f"by teacher 'teacher' at {wrong.url}: prompt_logprobs")):
            await outcomes(plugin, score_requests(8))
