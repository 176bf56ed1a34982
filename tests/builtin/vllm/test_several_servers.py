"""Several servers at once: requests are spread, weights pushed to all, and one that is gone or back is no danger."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import bodies, opened
from builtin.vllm.pushes import LOAD, require_sampled_by, sample, sampler, scores_prompts, with_weights, with_weights_on
from distillkit.errors import InputError, RunFailedError
from distillkit.records import Weights
from distillkit.testing import make_context
from distillkit_builtin.pushed import weight_push
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

FAST = {"timeouts": {"retry": 30.0, "request": 5.0}}
Pushed = Callable[[Sequence[Weights]], CategoricalModel]


@pytest.fixture(params=["adapters", "models"])
def versions(request: pytest.FixtureRequest) -> Any:
    """A LoRA's versions, or those of all weights."""
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_push, "THERE_SECONDS", 0.3)
    monkeypatch.setattr("distillkit_builtin.vllm.push_kinds.THERE_SECONDS", 0.3)


def current(pushed: Sequence[Weights]) -> CategoricalModel:
    """What samples with the last of them; the loopback's whole weights move what was there before."""
    return with_weights(pushed[-1]) if pushed[-1].format == "peft" else with_weights_on(pushed)


async def test_a_server_that_dies_while_it_samples_leaves_its_requests_to_the_others(
    serve: Serve, versions: Sequence[Weights]
) -> None:
    """Nothing waits until it is back, not even for what it had answered before."""
    good, dying = serve(delay=0.02), serve(delay=0.02)
    async with opened(sampler(good, dying, **FAST)) as plugin:
        await plugin.sync(versions[0])
        for server in (good, dying):
            server.traffic.clear()
        sampling = asyncio.create_task(sample(plugin, 24))
        while not dying.traffic.counts.get(COMPLETIONS):
            await asyncio.sleep(0.002)
        dying.stop()
        async with asyncio.timeout(15):
            require_sampled_by(await sampling, current(versions[:1]), 0)


async def test_what_a_server_answered_before_it_was_gone_is_sampled_elsewhere(
    serve: Serve, models: Sequence[Weights]
) -> None:
    """Nobody can say any more which weights it had."""
    good, gone = serve(), serve()
    async with opened(sampler(good, gone, **FAST)) as plugin:
        await plugin.sync(models[0])
        gone.traffic.clear()
        for path in ("/weight_info", "/v1/models"):
            gone.faults.add(faults.Hangup(), where=path, times=None)
        good.faults.add(faults.Delay(0.5), where=COMPLETIONS, times=4)  # so that the other is asked too
        sampling = asyncio.create_task(sample(plugin, 8))
        while not gone.traffic.counts.get("/weight_info"):
            await asyncio.sleep(0.002)
        gone.faults.add(faults.Hangup(), where=COMPLETIONS, times=None)
        async with asyncio.timeout(15):
            require_sampled_by(await sampling, with_weights(models[0]), 0)


async def test_a_server_that_is_gone_when_weights_are_pushed_is_named_once_and_the_others_go_on(
    serve: Serve, versions: Sequence[Weights]
) -> None:
    good, gone, told = serve(), serve(), []
    async with opened(sampler(good, gone, **FAST), make_context(notify=told.append)) as plugin:
        await plugin.sync(versions[0])
        gone.stop()
        for count in (2, 3):
            await plugin.sync(versions[count - 1])
            require_sampled_by(await sample(plugin), current(versions[:count]), count - 1)
    mine = [message for message in told if "is not loaded at" in message]
    assert len(mine) == 1
    assert mine[0].startswith(f"sampler 'vllm': policy version 1 is not loaded at {gone.url}: no answer within 0.3 s; ")
    assert "no completion of it counts before it has the current version" in mine[0]


async def test_a_first_adapter_is_compared_where_it_is_although_a_server_is_gone(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    good, gone = serve(), serve()
    async with opened(sampler(good, gone, **FAST)) as plugin:
        gone.stop()
        good.faults.add(faults.OtherWeights(5.0), where=scores_prompts, times=None)
        with pytest.raises(InputError, match=rf"{good.url} reports logprobs .* differ by \d+\.\d\d nats"):
            await plugin.sync(adapters[0])


async def test_a_server_that_is_back_with_old_weights_is_given_the_current_ones_before_it_counts(
    serve: Serve, versions: Sequence[Weights]
) -> None:
    """The network was cut for a while: it never ended, so it has what was pushed before."""
    good, cut = serve(delay=0.005), serve(delay=0.005)
    async with opened(sampler(good, cut, **FAST)) as plugin:
        await plugin.sync(versions[0])
        cut.faults.add(faults.Hangup(), times=None)
        await plugin.sync(versions[1])
        held = list(cut.catalogue.adapters), cut.catalogue.weight_version
        assert all(name.endswith("-v0") for name in (*held[0], *held[1:]) if name != "default")
        cut.faults.clear()
        cut.traffic.clear()
        found = await sample(plugin, 16)
        if versions[0].format == "peft":
            require_sampled_by(found, with_weights(versions[1]), 1)
            assert [name.rpartition("-")[2] for name in cut.catalogue.adapters] == ["v1"]  # the old one was unloaded
            await plugin.sync(versions[2])  # and it is as the others again
            assert [name.rpartition("-")[2] for name in cut.catalogue.adapters] == ["v2"]
        else:
            assert {rollout.policy_version for rollout in found} == {1}
            assert cut.catalogue.weight_version.endswith("-v1")
        assert cut.traffic.counts[COMPLETIONS] > 1


async def test_a_server_that_is_gone_again_while_it_is_given_its_weights_ends_nothing(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    good, bad = serve(delay=0.005), serve(delay=0.005)
    async with opened(sampler(good, bad, **{"timeouts": {"retry": 0.2, "request": 5.0}})) as plugin:
        await plugin.sync(adapters[0])
        bad.stop()
        bad.start()
        bad.faults.add(faults.Hangup(), where=LOAD, times=None)
        good.faults.add(faults.Delay(0.05), where=COMPLETIONS, times=4)
        found = await sample(plugin, 4)
    require_sampled_by([each for each in found if not hasattr(each, "reason")], with_weights(adapters[0]), 0)
    assert sum(not hasattr(each, "reason") for each in found) >= 2


async def test_without_any_server_a_version_does_not_count(serve: Serve, adapters: Sequence[Weights]) -> None:
    servers = serve(), serve()
    async with opened(sampler(*servers, timeouts={"retry": 0.1})) as plugin:
        await plugin.sync(adapters[0])
        for server in servers:
            server.stop()
        with pytest.raises(RunFailedError, match=r"policy version 1 .* could not be loaded at http.*; at http"):
            await plugin.sync(adapters[1])


async def test_a_server_that_does_not_see_our_disk_is_refused_at_the_start_with_what_to_do(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    def elsewhere(server: LoopbackServer) -> None:
        reason = "Loading lora x failed: No adapter found for /run/weights/version-0"
        body = {"error": {"message": reason, "type": "NotFoundError", "code": 404}}
        server.faults.add(faults.Status(404, body=body), where=LOAD)

    seeing, blind = serve(), serve()
    async with opened(sampler(seeing, blind)) as plugin:
        elsewhere(blind)
        with pytest.raises(InputError) as caught:
            await plugin.sync(adapters[0])
        message = str(caught.value)
        assert f"could not be loaded at {blind.url}: answered 404: Loading lora" in message
        assert "set student.sampler.server_run_dir to where that is there" in message
        assert "without one let the student sample by itself" in message
        assert not seeing.catalogue.adapters
        await plugin.sync(adapters[0])
        elsewhere(blind)
        with pytest.raises(RunFailedError, match="server_run_dir"):  # its mount was lost
            await plugin.sync(adapters[1])


async def test_a_path_that_is_not_there_is_said_as_a_server_says_it(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        with pytest.raises(InputError, match=r"No adapter found for .*nowhere.*server_run_dir"):
            await plugin.sync(Weights(0, "peft", tmp_path / "nowhere"))
        assert len(bodies(server, LOAD)) == 1


async def test_each_server_must_serve_the_model_at_the_length_that_is_needed(serve: Serve) -> None:
    right, other, short = serve(name="base"), serve(name="another"), serve(name="base", context_length=79)
    with pytest.raises(InputError, match=f"{other.url} serves no model 'base'"):
        async with opened(sampler(right, other)):
            pass
    with pytest.raises(InputError, match=f"up to 80 tokens, and base is served at {short.url} with --max-model-len 79"):
        async with opened(sampler(right, short)):
            pass


async def test_requests_go_where_the_least_is_under_way(serve: Serve, adapters: Sequence[Weights]) -> None:
    quick, slow = serve(delay=0.002), serve(delay=0.1)
    async with opened(sampler(quick, slow, concurrency={"initial": 4, "max": 4})) as plugin:
        await plugin.sync(adapters[0])
        for server in (quick, slow):
            server.traffic.clear()
        require_sampled_by(await sample(plugin, 40), with_weights(adapters[0]), 0)
    assert quick.traffic.counts[COMPLETIONS] > 2 * slow.traffic.counts[COMPLETIONS] > 0
