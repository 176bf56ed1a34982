"""A student's LoRA into running vLLM servers, beside what is the same for every kind of server."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from loopback.openai.wire import COMPLETIONS, Serve, write_adapter

from builtin.http.serving import bodies, opened
from builtin.vllm.pushes import (
    LOAD,
    UNLOAD,
    require_sampled_by,
    sample,
    sampler,
    scores_prompts,
    with_weights,
)
from distillkit.errors import InputError, RunFailedError
from distillkit.records import Failure, Weights
from distillkit.testing import make_context
from distillkit_builtin.pushed import weight_push
from distillkit_loopback.openai import faults


async def test_a_first_adapter_that_is_left_out_of_scores_is_refused(serve: Serve, adapters: Sequence[Weights]) -> None:
    """As vLLM leaves a LoRA on the head out of prompt logprobs; of the base model both are the same."""
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(faults.OtherWeights(5.0), where=scores_prompts, times=None)
        with pytest.raises(
            InputError, match=r"differ by \d+\.\d\d nats .* leaves a LoRA on the head .* merge this adapter"
        ):
            await plugin.sync(adapters[0])
    assert not server.catalogue.adapters


async def test_a_first_adapter_that_cannot_be_asked_for_is_refused(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(faults.Status(400), where=scores_prompts)
        with pytest.raises(InputError, match=f"sampler 'vllm': {server.url} answered 400: injected fault"):
            await plugin.sync(adapters[0])


async def test_later_adapters_cost_no_question(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.traffic.clear()
        await plugin.sync(adapters[0])
        assert server.traffic.counts[COMPLETIONS] == 4
        server.traffic.clear()
        await plugin.sync(adapters[1])
        assert COMPLETIONS not in server.traffic.counts


async def test_runs_that_share_a_server_do_not_share_names(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as one, opened(sampler(server)) as other:
        await one.sync(adapters[0])
        await other.sync(adapters[1])
        assert len(server.catalogue.adapters) == 2
        require_sampled_by(await sample(one), with_weights(adapters[0]), 0)
        require_sampled_by(await sample(other), with_weights(adapters[1]), 1)


async def test_every_replica_gets_every_version(serve: Serve, adapters: Sequence[Weights]) -> None:
    servers = [serve(delay=0.005), serve(delay=0.005)]
    async with opened(sampler(*servers)) as plugin:
        await plugin.sync(adapters[0])
        for server in servers:
            server.traffic.clear()
        require_sampled_by(await sample(plugin, 12), with_weights(adapters[0]), 0)
        assert all(len(server.catalogue.adapters) == 1 for server in servers)
    assert all(server.traffic.counts[COMPLETIONS] for server in servers)


async def test_an_adapter_that_is_lost_again_and_again_is_a_failure(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        server.faults.add(faults.Status(404), where=COMPLETIONS, times=None)
        (failure,) = await sample(plugin, 1)
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert failure.reason == "the servers lost the weights of version 0 again and again"


async def test_a_version_that_one_replica_refuses_is_unloaded_from_the_others_and_does_not_count(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    good, bad = serve(), serve()
    async with opened(sampler(good, bad)) as plugin:
        await plugin.sync(adapters[0])
        bad.faults.add(faults.Status(500), where=LOAD)
        with pytest.raises(RunFailedError) as caught:
            await plugin.sync(adapters[1])
        what = f"policy version 1 ({adapters[1].path}) could not be loaded at {bad.url}: answered 500: injected fault"
        assert str(caught.value).startswith(f"{what}; start vLLM with")
        for server in (good, bad):
            assert list(server.catalogue.adapters.values()) == [str(adapters[0].path)]
        require_sampled_by(await sample(plugin), with_weights(adapters[0]), 0)
        await plugin.sync(adapters[2])
        require_sampled_by(await sample(plugin), with_weights(adapters[2]), 2)
    assert not good.catalogue.adapters
    assert not bad.catalogue.adapters


async def test_all_replicas_that_did_not_take_a_version_are_named_with_what_could_not_be_undone(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    servers = [serve() for _ in range(3)]
    for server, fault in zip(servers[1:], (faults.Status(400), faults.Status(503)), strict=True):
        server.faults.add(fault, where=LOAD, times=None)
    servers[0].faults.add(faults.Status(500), where=UNLOAD)
    async with opened(sampler(*servers, timeouts={"retry": 0.05})) as plugin:
        with pytest.raises(RunFailedError) as caught:
            await plugin.sync(adapters[0])
    message = str(caught.value)
    assert f"could not be loaded at {servers[1].url}: answered 400: injected fault; at {servers[2].url}: " in message
    assert f"; it may still be loaded: {servers[0].url}: HTTP 500: injected fault; start vLLM with" in message
    assert UNLOAD not in servers[1].traffic.counts  # it said no, so it has none


async def test_a_load_that_is_interrupted_is_undone_at_the_end(serve: Serve, adapters: Sequence[Weights]) -> None:
    quick, slow = serve(), serve()
    async with opened(sampler(quick, slow)) as plugin:
        slow.faults.add(faults.Delay(1.0), where=LOAD)
        loading = asyncio.ensure_future(plugin.sync(adapters[0]))
        while not quick.catalogue.adapters:
            await asyncio.sleep(0.005)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    assert not quick.catalogue.adapters


async def test_an_adapter_that_stays_loaded_is_said_and_ends_nothing(
    serve: Serve, adapters: Sequence[Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_push, "UNLOAD_SECONDS", 0.2)
    server, told = serve(), []
    async with opened(sampler(server), make_context(notify=told.append)) as plugin:
        for fault in (faults.Status(400), faults.Hang()):
            server.faults.add(fault, where=UNLOAD)
        for weights in adapters:
            await plugin.sync(weights)
        require_sampled_by(await sample(plugin), with_weights(adapters[2]), 2)
        server.stop()  # and closing takes no longer than that either
    assert [re.sub(r"distillkit-\w+-", "", message).partition(": ")[2] for message in told] == [
        f"the adapter v0 may still be loaded: {server.url}: HTTP 400: injected fault",
        f"the adapter v1 may still be loaded: {server.url}: no answer within 0.2 s",
        f"the adapter v2 may still be loaded: {server.url}: no answer within 0.2 s",
    ]


async def test_a_container_sees_the_run_directory_elsewhere(serve: Serve, tmp_path: Path) -> None:
    run_dir, mount = tmp_path / "run", tmp_path / "mount"
    (run_dir / "weights").mkdir(parents=True)
    mount.symlink_to(run_dir)
    write_adapter(run_dir / "weights" / "v0")
    server = serve()
    context = replace(make_context(), run_dir=run_dir)
    async with opened(sampler(server, server_run_dir=str(mount)), context) as plugin:
        await plugin.sync(Weights(0, "peft", run_dir / "weights" / "v0"))
        assert [body["lora_path"] for body in bodies(server, LOAD)] == [f"{mount}/weights/v0"]
