"""A server is paused while its weights are replaced, and goes on however that ends."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve, complete, post

from builtin.http.serving import opened, truth
from builtin.vllm.pushes import require_sampled_by, sample, sampler, with_weights
from distillkit.errors import InputError, RunFailedError
from distillkit.records import Weights
from distillkit_builtin.vllm import push_kinds
from distillkit_loopback.openai import faults


async def test_weights_are_replaced_only_once_nothing_is_computed(serve: Serve, models: Sequence[Weights]) -> None:
    """A completion that is under way ends with the weights that it began with; one that comes meanwhile waits."""
    server = serve(delay=0.3)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.traffic.clear()
        asked = {"prompt": [5, 70], "max_tokens": 6, "logprobs": 0, "return_token_ids": True}
        under_way = asyncio.ensure_future(asyncio.to_thread(complete, server, **asked))
        while not server.traffic.counts.get(COMPLETIONS):
            await asyncio.sleep(0.005)
        await plugin.sync(models[1])
        found = await under_way
    expected = truth(found["token_ids"], [5, 70], with_weights(models[0]))
    np.testing.assert_allclose(found["logprobs"]["token_logprobs"], expected, atol=1e-6)
    assert not server._engine.gate.paused


@pytest.mark.parametrize("fault", [faults.Status(500), faults.Status(404)])
async def test_a_server_goes_on_after_a_load_that_failed(
    serve: Serve, models: Sequence[Weights], fault: faults.Status
) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(fault, where="/collective_rpc")
        with pytest.raises(RunFailedError, match=f"answered {fault.status}"):
            await plugin.sync(models[0])
        assert httpx.get(f"{server.url}/is_paused").json() == {"is_paused": False}


@pytest.mark.parametrize("where", ["/collective_rpc", "/pause"])
async def test_a_server_goes_on_after_a_run_that_is_interrupted_while_weights_are_loaded(
    serve: Serve, models: Sequence[Weights], where: str
) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(faults.Delay(0.3), where=where)
        loading = asyncio.ensure_future(plugin.sync(models[0]))
        while not server.traffic.counts.get(where):
            await asyncio.sleep(0.005)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    assert server.traffic.counts["/resume"] == 1
    if where == "/collective_rpc":  # a pause that is given up here is not answered by the loopback before its delay
        assert httpx.get(f"{server.url}/is_paused").json() == {"is_paused": False}


@pytest.mark.parametrize("fault", [faults.Status(404), faults.Hangup()], ids=repr)
async def test_an_interrupt_is_one_although_the_server_does_not_go_on(
    serve: Serve, models: Sequence[Weights], fault: Any
) -> None:
    """Also while a server is given its weights again, where a load that fails is no end."""
    server = serve()
    async with opened(sampler(server, timeouts={"retry": 0.1})) as plugin:
        await plugin.sync(models[0])
        server.stop()
        server.start()
        server.traffic.clear()
        server.faults.add(faults.Delay(0.3), where="/collective_rpc")
        server.faults.add(fault, where="/resume", times=None)
        repairing = asyncio.ensure_future(plugin._live.ready().repair(server.url, 0))
        while not server.traffic.counts.get("/collective_rpc"):
            await asyncio.sleep(0.005)
        repairing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await repairing


async def test_engines_that_are_still_about_to_pause_are_asked_to_go_on_until_they_do(
    serve: Serve, models: Sequence[Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_kinds, "RESUME_EVERY", 0.01)
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(faults.Status(500), where="/resume", times=2)
        await plugin.sync(models[0])
        assert server.traffic.counts["/resume"] == 3
        assert not server._engine.gate.paused
        monkeypatch.setattr(push_kinds, "RESUME_SECONDS", 0.1)
        server.faults.add(faults.Status(500), where="/resume", times=None)
        with pytest.raises(RunFailedError, match=r"/resume was answered 500: injected fault for 0\.1 s; it may still"):
            await plugin.sync(models[1])


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_that_knows_no_pause_is_given_weights_without_one(
    serve: Serve, models: Sequence[Weights], status: int
) -> None:
    server = serve()
    server.faults.add(faults.Status(status), where="/pause", times=None)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        require_sampled_by(await sample(plugin), with_weights(models[0]), 0)
    assert "/resume" not in server.traffic.counts


async def test_a_server_that_was_left_paused_is_said_before_it_is_asked(serve: Serve) -> None:
    server = serve()
    assert post(server, "/pause?mode=wait").json() == {"status": "paused"}
    with pytest.raises(InputError, match=f"is paused, .* curl -X POST {server.url}/resume"):
        async with opened(sampler(server)):
            pass
    assert COMPLETIONS not in server.traffic.counts
