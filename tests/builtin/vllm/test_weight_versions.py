"""Answers that name the weights that sampled them: where completions are asked for them, and which ones count."""

from collections.abc import Sequence
from typing import Any

import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import bodies, opened
from builtin.vllm.pushes import require_sampled_by, sample, sampler, with_weights, with_weights_on
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.records import Failure, Weights
from distillkit.testing import ByteTokenizer, make_context
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.transport.faults import GenerationConfig

TOKENS = "/inference/v1/generate"
SCALED_OUT = Flavor(scale_out=True)


# Which way is taken


async def test_a_server_with_the_token_interface_samples_the_same_by_it(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    found: dict[bool, list[Any]] = {}
    for scale_out in (False, True):
        server, told = serve(flavor=Flavor(scale_out=scale_out)), []
        async with opened(sampler(server), make_context(notify=told.append)) as plugin:
            await plugin.sync(adapters[0])
            server.traffic.clear()
            found[scale_out] = await sample(plugin)
            path = TOKENS if scale_out else COMPLETIONS
            assert server.traffic.counts == {path: 4}
            assert plugin.provenance()["completions"] == path
        assert told == []  # nobody asked for what the other does not have
        require_sampled_by(found[scale_out], with_weights(adapters[0]), 0)
    for one, other in zip(found[False], found[True], strict=True):
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert other.text == ByteTokenizer().decode(other.token_ids.tolist())


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_one_server_without_it_has_all_asked_at_the_other_endpoint(serve: Serve, status: int) -> None:
    one, other, told = serve(flavor=SCALED_OUT), serve(flavor=SCALED_OUT), []
    other.faults.add(faults.Status(status), where=TOKENS, times=None)
    async with opened(sampler(one, other), make_context(notify=told.append)) as plugin:
        assert plugin.provenance()["completions"] == COMPLETIONS
    assert told == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.Status(400, message="Unexpected field detokenize"), "answered 400: Unexpected field detokenize; requ"),
        (faults.NoVersions(), "weight_versions says whose 0 of 4 tokens are"),
        (faults.SeveralVersions(), r"its tokens are of several weights \(default, other\)"),
        (faults.NoIds(), "the response holds no token_ids"),
    ],
    ids=repr,
)
async def test_one_that_has_it_and_does_not_say_whose_completions_are_is_told_why_not(
    serve: Serve, fault: Any, said: str, adapters: Sequence[Weights]
) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    server.faults.add(fault, where=TOKENS, times=None)
    async with opened(sampler(server), make_context(notify=told.append)) as plugin:
        await plugin.sync(adapters[0])
        require_sampled_by(await sample(plugin), with_weights(adapters[0]), 0)
    (message,) = told
    assert message.startswith(f"sampler 'vllm': {server.url}: completions are asked for at {COMPLETIONS}")
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(message)


async def test_what_touches_the_sampling_of_the_token_interface_is_found_by_it(serve: Serve) -> None:
    """The measurement asks at the endpoint that the run will ask."""
    server = serve(flavor=SCALED_OUT)
    server.faults.add(GenerationConfig({"top_k": 1}, forced=True), where=TOKENS, times=None)
    with pytest.raises(InputError, match="samples from another distribution"):
        async with opened(sampler(server)):
            pass


async def test_processed_logprobs_of_the_token_interface_are_refused(serve: Serve) -> None:
    with pytest.raises(InputError, match=r"differ by \d\.\d\d nats from its own scores"):
        async with opened(sampler(serve(flavor=SCALED_OUT, processed_logprobs=True))):
            pass


# Whose completions


async def test_whole_weights_are_named_by_the_answers_and_nobody_is_asked_afterwards(
    serve: Serve, models: Sequence[Weights]
) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        for weights in models:
            await plugin.sync(weights)
            require_sampled_by(await sample(plugin), with_weights_on(models[: weights.version + 1]), weights.version)
        assert "/weight_info" not in server.traffic.counts
    salts = [salt.rpartition("-")[2] for body in bodies(server, TOKENS) if (salt := body.get("cache_salt"))]
    assert salts == ["v0"] * 4 + ["v1"] * 4 + ["v2"] * 4


async def test_a_completion_of_several_weights_is_sampled_again(serve: Serve, models: Sequence[Weights]) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.traffic.clear()
        server.faults.add(faults.SeveralVersions(), where=TOKENS)
        found = await sample(plugin)
    assert [rollout.policy_version for rollout in found] == [0] * 4
    assert server.traffic.counts[TOKENS] > 4
    assert server.traffic.counts["/collective_rpc"] == 1  # whoever relabelled them may have replaced them


async def test_a_restarted_server_gets_all_weights_again_before_it_counts(
    serve: Serve, models: Sequence[Weights]
) -> None:
    server = serve(flavor=SCALED_OUT, delay=0.005)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.stop()
        server.start()
        require_sampled_by(await sample(plugin, 12), with_weights(models[0]), 0)
    assert server.traffic.counts["/collective_rpc"] == 2


async def test_weights_that_are_replaced_again_and_again_are_a_failure(serve: Serve, models: Sequence[Weights]) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.faults.add(faults.SeveralVersions(), where=TOKENS, times=None)
        (failure,) = await sample(plugin, 1)
    assert isinstance(failure, Failure)
    assert failure.reason == "the servers lost the weights of version 0 again and again"


async def test_an_answer_that_stops_naming_its_weights_ends_the_run(serve: Serve, models: Sequence[Weights]) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
        server.faults.add(faults.NoVersions(), where=TOKENS)
        with pytest.raises(AlignmentError, match=r"completion .* weight_versions says whose 0 of 6 tokens are"):
            await sample(plugin, 1)


async def test_an_adapter_on_a_base_that_somebody_replaces_ends_the_run(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    server = serve(flavor=SCALED_OUT)
    server.catalogue.weight_version = "mine"
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        require_sampled_by(await sample(plugin), with_weights(adapters[0]), 0)
        server.catalogue.weight_version = "theirs"
        with pytest.raises(RunFailedError, match=r"other weights \('theirs'\) than when the run started \('mine'\)"):
            await sample(plugin)


async def test_an_adapter_is_not_put_on_weights_that_an_earlier_run_left(
    serve: Serve, adapters: Sequence[Weights], models: Sequence[Weights]
) -> None:
    server = serve(flavor=SCALED_OUT)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(models[0])
    async with opened(sampler(server)) as plugin:
        with pytest.raises(InputError, match=r"weights that an earlier run pushed \('distillkit-\w+-v0'\)"):
            await plugin.sync(adapters[0])
        await plugin.sync(models[1])  # whole weights replace them
