"""A server that is started again without the token interface: the run goes on as a new one would, or says why not."""

from collections.abc import Sequence
from typing import Any

import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import opened
from builtin.vllm.pushes import require_sampled_by, sample, sampler, with_weights
from distillkit.errors import InputError, RunFailedError
from distillkit.records import Weights
from distillkit.testing import make_context
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer
from distillkit_loopback.transport.faults import GenerationConfig

TOKENS = "/inference/v1/generate"
SCALED_OUT = Flavor(scale_out=True)


def start_again(server: LoopbackServer, status: int = 403) -> None:
    """Without its adapters, the pushed weights and the token interface."""
    server.stop()
    message = {403: "Scale-out endpoints are disabled", 404: "Not Found"}.get(status, "Method Not Allowed")
    server.faults.add(faults.Status(status, message=message), where=TOKENS, times=None)
    server.start()
    server.traffic.clear()


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_an_adapters_completions_are_the_same_and_it_is_said_once(
    serve: Serve, adapters: Sequence[Weights], status: int
) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    async with opened(sampler(server), make_context(notify=told.append)) as plugin:
        await plugin.sync(adapters[0])
        before = await sample(plugin)
        start_again(server, status)
        after = await sample(plugin)
        refused = server.traffic.counts[TOKENS]
        assert [one.token_ids.tolist() for one in after] == [one.token_ids.tolist() for one in before]
        assert [one.logprobs.tolist() for one in after] == [one.logprobs.tolist() for one in before]
        assert [one.text for one in after] == [one.text for one in before]
        await plugin.sync(adapters[1])
        require_sampled_by(await sample(plugin), with_weights(adapters[1]), 1)
        assert server.traffic.counts[TOKENS] == refused  # it is asked there no more
    (message,) = told
    assert f"{server.url} has no {TOKENS} any more (it answered {status}: " in message
    assert f"completions are asked for at {COMPLETIONS}" in message


async def test_whole_weights_count_by_their_label_from_then_on(serve: Serve, models: Sequence[Weights]) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    async with opened(sampler(server), make_context(notify=told.append)) as plugin:
        await plugin.sync(models[0])
        start_again(server)
        require_sampled_by(await sample(plugin), with_weights(models[0]), 0)
        assert server.traffic.counts["/collective_rpc"] == 1  # it was given them again
        assert server.traffic.counts["/weight_info"] >= 4  # what the answers said is asked for now
    assert len(told) == 1


async def test_whole_weights_that_nothing_proves_any_more_end_the_run(serve: Serve, models: Sequence[Weights]) -> None:
    """It was started again without the development endpoints too."""
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        for path in ("/weight_info", "/update_weight_version", "/collective_rpc", "/pause"):
            server.faults.add(faults.Status(404), where=path, times=None)
        start_again(server)
        with pytest.raises(RunFailedError, match=r"could not be loaded.*start vLLM with VLLM_SERVER_DEV_MODE=1"):
            await sample(plugin, count=1)


async def test_another_base_model_below_an_adapter_ends_the_run(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        start_again(server)
        server.catalogue.weight_version = "another"
        with pytest.raises(RunFailedError, match=r"has other weights \('another'\) than when the run started"):
            await sample(plugin, count=1)


async def test_what_a_start_would_refuse_is_refused_here_too(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        server.faults.add(GenerationConfig({"top_k": 1}, forced=True), where=COMPLETIONS, times=None)
        start_again(server)
        with pytest.raises(InputError, match=r"any more .* cannot be asked elsewhere: .* another distribution"):
            await sample(plugin, count=1)


async def test_a_model_that_is_not_there_is_no_endpoint_that_is_not(serve: Serve, adapters: Sequence[Weights]) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    async with opened(sampler(server), make_context(notify=told.append)) as plugin:
        await plugin.sync(adapters[0])
        server.stop()
        server.start()
        server.traffic.clear()
        found: list[Any] = await sample(plugin)
        require_sampled_by(found, with_weights(adapters[0]), 0)
        assert COMPLETIONS not in server.traffic.counts
    assert told == []
