"""All weights of a student into running vLLM servers, beside what is the same for every kind of server."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from loopback.openai.wire import Serve

from builtin.http.serving import bodies, opened
from builtin.vllm.pushes import (
    require_sampled_by,
    sample,
    sampler,
    with_weights,
    with_weights_on,
)
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Weights
from distillkit.testing import make_request
from distillkit_loopback.openai import faults


async def test_all_weights_are_reloaded_from_their_directory_and_prefixes_forgotten(
    serve: Serve, models: Sequence[Weights]
) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        for weights in models:
            await plugin.sync(weights)
    assert server.traffic.counts["/reset_prefix_cache"] == 3
    assert [body["kwargs"] for body in bodies(server, "/collective_rpc")] == [
        {"weights_path": str(weights.path)} for weights in models
    ]


async def test_a_result_from_before_or_within_a_repair_does_not_count(serve: Serve, models: Sequence[Weights]) -> None:
    """The server has our label again when the late answer is looked at, and had other weights when it was made."""
    server = serve()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.stop()
        server.start()
        # The first is answered with the weights of the start, and its label is looked at after the second's repair.
        server.traffic.clear()
        server.faults.add(faults.Delay(1.0), where="/weight_info")
        requests = [make_request(sample=i, max_tokens=6) for i in range(2)]
        first = asyncio.ensure_future(anext(plugin.sample(requests[:1])))
        while not server.traffic.counts.get("/weight_info"):
            await asyncio.sleep(0.005)
        second = await anext(plugin.sample(requests[1:]))
        assert not first.done()
        found = [await first, second]
    require_sampled_by(found, with_weights(models[0]), 0)


async def test_what_is_asked_for_within_a_repair_does_not_count_although_the_label_is_ours_again(
    serve: Serve, models: Sequence[Weights]
) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.traffic.clear()
        server.faults.add(faults.Delay(0.3), where="/resume")
        push = plugin._live.ready()
        repairing = asyncio.ensure_future(push.repair(server.url, 0))
        while not server.traffic.counts.get("/resume"):
            await asyncio.sleep(0.005)
        assert await push.holds(server.url)
        assert not await push.holds_since(server.url, push.repairs(server.url))
        await repairing
        assert await push.holds_since(server.url, push.repairs(server.url))


async def test_weights_that_one_replica_refuses_are_taken_back_before_anything_counts(
    serve: Serve, models: Sequence[Weights]
) -> None:
    good, bad = serve(delay=0.005), serve(delay=0.005)
    async with opened(sampler(good, bad)) as plugin:
        await plugin.sync(models[0])
        bad.faults.add(faults.Status(500), where="/collective_rpc")
        with pytest.raises(RunFailedError, match=f"policy version 1 .* could not be loaded at {bad.url}: answered 500"):
            await plugin.sync(models[1])
        found = await sample(plugin, 12)
    assert {rollout.policy_version for rollout in found} == {0}
    for server in (good, bad):  # both were given version 0 again before they were believed
        assert [Path(body["kwargs"]["weights_path"]).name for body in bodies(server, "/collective_rpc")] == [
            "m0",
            "m1",
            "m0",
        ]


async def test_weights_whose_load_ends_half_way_are_no_version(serve: Serve, models: Sequence[Weights]) -> None:
    """They are in place already, and the label is that of no version."""
    server = serve()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.faults.add(faults.Status(500), where="/reset_prefix_cache")
        with pytest.raises(RunFailedError, match="policy version 1"):
            await plugin.sync(models[1])
        assert re.fullmatch(r"distillkit-\w+-v1-loading", server.catalogue.weight_version)
        require_sampled_by(await sample(plugin), with_weights_on([models[0], models[1], models[0]]), 0)


async def test_a_server_without_development_endpoints_says_how_to_start_it(
    serve: Serve, models: Sequence[Weights]
) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(faults.Status(404), where="/collective_rpc", times=None)
        with pytest.raises(RunFailedError, match="start vLLM with VLLM_SERVER_DEV_MODE=1 in its environment"):
            await plugin.sync(models[0])
        server.faults.clear()
        await plugin.sync(models[0])
        server.faults.add(faults.Status(404), where="/weight_info", times=None)
        server.faults.add(faults.Status(404), where="/collective_rpc", times=None)
        with pytest.raises(RunFailedError, match="VLLM_SERVER_DEV_MODE=1"):
            await sample(plugin)


async def test_a_label_that_cannot_be_read_is_a_failure(serve: Serve, models: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server, timeouts={"retry": 0.1})) as plugin:
        await plugin.sync(models[0])
        server.faults.add(faults.Status(503), where="/weight_info", times=None)
        (failure,) = await sample(plugin, 1)
    assert isinstance(failure, Failure)
    assert "HTTP 503: injected fault" in failure.reason
