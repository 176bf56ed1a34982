"""New weights into running servers, also into those that lost them: adapters under new names, all weights in place."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    with_weights_on,
)
from distillkit.errors import InputError, RunFailedError
from distillkit.records import Failure, Weights
from distillkit.testing import make_context, make_request
from distillkit_builtin.pushed import weight_push
from distillkit_loopback.openai import faults

# Adapters


async def test_each_version_is_an_adapter_of_a_new_name_and_the_old_one_is_unloaded(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    server, names = serve(), []
    async with opened(sampler(server)) as plugin:
        for weights in adapters:
            await plugin.sync(weights)
            require_sampled_by(await sample(plugin), with_weights(weights), weights.version)
            assert list(server.catalogue.adapters.values()) == [str(weights.path)]
            names += server.catalogue.adapters
        assert plugin.metrics()["concurrency/student/window"] == 16
    assert not server.catalogue.adapters
    assert [name.rpartition("-")[2] for name in names] == ["v0", "v1", "v2"]
    assert {body["model"] for body in bodies(server)} == {"loopback", *names}
    assert not any(body.get("cache_salt") for body in bodies(server))  # the adapter's name is in the cache's keys


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


async def test_a_server_that_was_restarted_gets_the_adapter_again(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        for weights in adapters:
            await plugin.sync(weights)
            server.stop()
            server.start()
            require_sampled_by(await sample(plugin, 8), with_weights(weights), weights.version)
    assert server.traffic.counts[LOAD] == 6  # once for all that were lost together


async def test_an_adapter_that_is_lost_again_and_again_is_a_failure(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        server.faults.add(faults.Status(404), where=COMPLETIONS, times=None)
        (failure,) = await sample(plugin, 1)
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert failure.reason == "the servers lost the weights of version 0 again and again"


async def test_a_load_whose_response_was_lost_is_not_an_error(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        server.faults.add(faults.ShortBody(), where=LOAD)
        await plugin.sync(adapters[0])
        require_sampled_by(await sample(plugin), with_weights(adapters[0]), 0)
    assert server.traffic.counts[LOAD] == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.Status(404, body={"detail": "Not Found"}), "answered 404: Not Found"),
        (faults.Status(400), "answered 400: injected fault"),
        (faults.Status(500), "answered 500: injected fault"),
    ],
)
async def test_a_server_without_runtime_adapters_says_how_to_start_it(
    serve: Serve, adapters: Sequence[Weights], fault: Any, said: str
) -> None:
    server = serve()
    async with opened(sampler(server, timeouts={"retry": 0.1})) as plugin:
        server.faults.add(fault, where=LOAD, times=None)
        with pytest.raises(RunFailedError, match=r"policy version 0 \(.*v0\) could not be loaded") as caught:
            await plugin.sync(adapters[0])
    assert f"at {server.url}: " in str(caught.value)
    assert said in str(caught.value)
    assert "start vLLM with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment and --enable-lora" in str(
        caught.value
    )


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


async def test_an_adapter_that_is_gone_already_need_not_be_unloaded(serve: Serve, adapters: Sequence[Weights]) -> None:
    server, told = serve(), []
    async with opened(sampler(server), make_context(notify=told.append)) as plugin:
        await plugin.sync(adapters[0])
        server.stop()
        server.start()
        await plugin.sync(adapters[1])
    assert told == []


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


# All weights


async def test_all_weights_are_reloaded_in_place_and_labelled(serve: Serve, models: Sequence[Weights]) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        for weights in models:
            await plugin.sync(weights)
            require_sampled_by(await sample(plugin), with_weights_on(models[: weights.version + 1]), weights.version)
            assert server.catalogue.weight_version.endswith(f"-v{weights.version}")
    assert server.traffic.counts["/reset_prefix_cache"] == 3
    assert {body["model"] for body in bodies(server)} == {"loopback"}
    salts = [salt.rpartition("-")[2] for body in bodies(server) if (salt := body.get("cache_salt"))]
    assert salts == ["v0"] * 4 + ["v1"] * 4 + ["v2"] * 4  # vLLM may fill its cache behind a reset
    assert [body["kwargs"] for body in bodies(server, "/collective_rpc")] == [
        {"weights_path": str(weights.path)} for weights in models
    ]


async def test_a_restarted_server_gets_all_weights_again_before_it_counts(
    serve: Serve, models: Sequence[Weights]
) -> None:
    server = serve(delay=0.005)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.stop()
        server.start()
        require_sampled_by(await sample(plugin, 12), with_weights(models[0]), 0)
    assert server.traffic.counts["/collective_rpc"] == 2


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
