"""New weights into running SGLang servers, and what answers say of theirs, beside what is the same for every kind."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from loopback.openai.wire import GENERATE, Serve, generate, post

from builtin.http.serving import bodies, opened, score_requests, truth
from builtin.sglang.pushes import REPLACE, UNLOAD, sampler
from builtin.vllm.pushes import require_sampled_by, sample, with_weights, with_weights_on
from distillkit.errors import InputError, RunFailedError
from distillkit.records import Weights
from distillkit_loopback.openai import faults
from distillkit_loopback.transport.messages import Request

# Adapters


async def test_an_adapter_that_made_room_for_others_answers_as_itself(
    served: Serve, adapters: Sequence[Weights]
) -> None:
    """SGLang unloads the least recently used one, and loads it again where it is asked for."""
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        (name,) = server.catalogue.adapters
        assert post(server, UNLOAD, lora_name=name).json()["success"]
        require_sampled_by(await sample(plugin), with_weights(adapters[0]), 0)
        assert list(server.catalogue.adapters) == [name]


async def test_a_server_that_does_not_see_our_disk_is_refused_with_what_to_do(served: Serve, tmp_path: Path) -> None:
    async with opened(sampler(served())) as plugin:
        with pytest.raises(InputError, match=r"Repo id must be in the form .*nowhere.*student.sampler.server_run_dir"):
            await plugin.sync(Weights(0, "peft", tmp_path / "nowhere"))
        with pytest.raises(InputError, match=r"No such file or directory: .*adapter_config.json.*server_run_dir"):
            await plugin.sync(Weights(0, "peft", tmp_path))
    async with opened(sampler(served())) as plugin:
        with pytest.raises(InputError, match=r"Cannot find any model weights with .*server_run_dir"):
            await plugin.sync(Weights(0, "safetensors", tmp_path))


async def test_a_base_model_that_is_replaced_below_the_adapters_ends_the_run(
    served: Serve, adapters: Sequence[Weights], models: Sequence[Weights]
) -> None:
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        async with opened(sampler(server)) as other:
            await other.sync(models[0])
        with pytest.raises(RunFailedError, match=r"has other weights \('distillkit-\w+-v0'\) than when the run start"):
            await sample(plugin)


async def test_a_base_model_that_another_run_left_is_refused_for_adapters_alone(
    served: Serve, adapters: Sequence[Weights], models: Sequence[Weights]
) -> None:
    server = served()
    for _ in range(2):
        async with opened(sampler(server)) as plugin:
            await plugin.sync(models[0])
    async with opened(sampler(server)) as plugin:
        with pytest.raises(InputError, match="its base model has weights that an earlier run pushed"):
            await plugin.sync(adapters[0])


# All weights


async def test_all_weights_are_replaced_behind_what_is_computed_and_the_cache_is_flushed(
    served: Serve, models: Sequence[Weights]
) -> None:
    server = served()
    async with opened(sampler(server)) as plugin:
        for weights in models:
            await plugin.sync(weights)
    assert [
        (body["model_path"], body["flush_cache"], body["abort_all_requests"]) for body in bodies(server, REPLACE)
    ] == [(str(weights.path), True, False) for weights in models]


async def test_scores_are_of_the_version_too(served: Serve, models: Sequence[Weights]) -> None:
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.stop()
        server.start()
        (score,) = [one async for one in plugin.score(score_requests())]
    np.testing.assert_array_equal(score.logprobs, truth(model=with_weights(models[0])))
    assert server.traffic.counts[REPLACE] == 2
    assert bodies(server, GENERATE)[-1]["cache_salt"] == server.catalogue.weight_version


async def test_weights_are_replaced_only_once_nothing_is_computed(served: Serve, models: Sequence[Weights]) -> None:
    server = served(delay=0.3)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.traffic.clear()
        under_way = asyncio.ensure_future(asyncio.to_thread(generate, server, 6, input_ids=[5, 70]))
        while not server.traffic.counts.get(GENERATE):
            await asyncio.sleep(0.005)
        await plugin.sync(models[1])
        found = await under_way
    assert found["meta_info"]["weight_version"].endswith("-v0")
    logprobs = [logprob for logprob, _, _ in found["meta_info"]["output_token_logprobs"]]
    np.testing.assert_allclose(logprobs, truth(found["output_ids"], [5, 70], with_weights(models[0])), atol=1e-6)


async def test_a_completion_of_two_versions_is_sampled_again(served: Serve, models: Sequence[Weights]) -> None:
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        label = server.catalogue.weight_version
        spans = [{"version": "before", "start": 0, "end": 1}, {"version": label, "start": 1, "end": 2}]
        meta = {"finish_reason": {"type": "length"}, "weight_version": label, "weight_versions": spans}
        meta["output_token_logprobs"] = [[-1.0, 5, None], [-2.0, 6, None]]
        spanning = {"text": "", "output_ids": [5, 6], "meta_info": meta}
        server.faults.add(faults.Status(200, body=spanning), where=GENERATE)
        require_sampled_by(await sample(plugin, 1), with_weights_on([models[0], models[0]]), 0)
    assert server.traffic.counts[REPLACE] == 2


async def test_weights_that_changed_behind_the_last_token_count_too(served: Serve, models: Sequence[Weights]) -> None:
    """What is said of the whole answer and of its tokens must both be ours."""
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        spans = [{"version": server.catalogue.weight_version, "start": 0, "end": 2}]
        meta = {"finish_reason": {"type": "length"}, "weight_version": "behind", "weight_versions": spans}
        meta["output_token_logprobs"] = [[-1.0, 5, None], [-2.0, 6, None]]
        server.faults.add(
            faults.Status(200, body={"text": "", "output_ids": [5, 6], "meta_info": meta}), where=GENERATE
        )
        require_sampled_by(await sample(plugin, 1), with_weights_on([models[0], models[0]]), 0)
    assert server.traffic.counts[REPLACE] == 2


async def test_after_a_load_that_failed_the_label_of_before_proves_nothing(
    served: Serve, models: Sequence[Weights]
) -> None:
    """A part of the weights may be in place already."""
    good, bad = served(delay=0.005), served(delay=0.005)
    async with opened(sampler(good, bad)) as plugin:
        await plugin.sync(models[0])
        bad.faults.add(faults.Status(400, body={"success": False, "message": "Failed to update"}), where=REPLACE)
        with pytest.raises(RunFailedError, match=f"version 1 .* could not be loaded at {bad.url}: .*Failed to update"):
            await plugin.sync(models[1])
        assert bad.catalogue.weight_version.endswith("-v0")
        found = await sample(plugin, 12)
    assert {rollout.policy_version for rollout in found} == {0}
    for server in (good, bad):  # both were given version 0 again before they were believed
        assert [Path(body["model_path"]).name for body in bodies(server, REPLACE)] == ["m0", "m1", "m0"]


async def test_a_result_from_before_or_within_a_repair_does_not_count(served: Serve, models: Sequence[Weights]) -> None:
    """Its label is ours, and so it was before the load that failed."""
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.faults.add(faults.Status(400), where=REPLACE)
        with pytest.raises(RunFailedError):
            await plugin.sync(models[1])
        late = faults.Delay(0.3)

        def first(request: Request) -> bool:
            params = request.fields.get("sampling_params")
            return isinstance(params, dict) and params["max_new_tokens"] == 6

        server.faults.add(late, where=first)
        require_sampled_by(await sample(plugin, 2), with_weights_on([models[0], models[0]]), 0)
    assert re.fullmatch(r"distillkit-\w+-v0", server.catalogue.weight_version)
