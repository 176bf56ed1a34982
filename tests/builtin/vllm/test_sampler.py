"""Sampler `vllm` between check and close: what it asks of a server, and what it refuses."""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import opened, score_requests, scorer, truth
from builtin.vllm.pushes import sample, sampler, with_weights
from distillkit import Registry, RunConfig
from distillkit.errors import AlignmentError, InputError, PluginError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.records import Failure, Weights
from distillkit.testing import FakeStudent, make_context, make_request
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel

# Check and open


def test_check_says_what_serves_and_asks_for_no_name_where_one_model_is_served(serve: Serve) -> None:
    one, other = serve(name="smol"), serve(name="smol")
    assert sampler(one).check(make_context()).notes == (f"sampler: smol at {one.url}",)
    assert sampler(one, other, model="smol").check(make_context()).notes == (f"sampler: smol at {one.url} and 1 more",)
    with pytest.raises(InputError, match="serves no model 'small'; did you mean 'smol'"):
        sampler(one, model="small").check(make_context())


async def test_adapters_are_no_base_models(serve: Serve, tmp_path: Path) -> None:
    server = serve(name="base")
    server.catalogue._adapters["mine"] = ("/x", CategoricalModel())
    assert sampler(server).check(make_context()).notes == (f"sampler: base at {server.url}",)
    with pytest.raises(InputError, match="serves no model 'mine'"):
        sampler(server, model="mine").check(make_context())


def test_several_base_models_ask_for_a_name(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Status(200, body={"data": [{"id": "a"}, {"id": "b"}]}), where="/v1/models")
    with pytest.raises(InputError, match="serves a, b; set `model` to the student's base model"):
        sampler(server).check(make_context())


async def refusal(plugin: VllmSampler) -> str:
    with pytest.raises(InputError) as caught:
        async with opened(plugin):
            pass
    return str(caught.value)


async def test_prompts_that_do_not_fit_are_refused_at_open(serve: Serve) -> None:
    async with opened(sampler(serve(context_length=80))):
        pass
    message = await refusal(sampler(serve(context_length=79)))
    assert message.startswith("sampler 'vllm': prompt and completion take up to 80 tokens, and loopback is served with")
    assert "--max-model-len 79; raise that, or lower sampling.max_completion_tokens" in message


async def test_a_server_that_reports_processed_logprobs_is_refused(serve: Serve) -> None:
    server = serve(processed_logprobs=True)
    message = await refusal(sampler(server))
    assert re.match(
        rf"sampler 'vllm': {server.url} reports logprobs of what it sampled that differ by \d\.\d\d nats", message
    )
    assert "start vLLM with --logprobs-mode raw_logprobs" in message
    right = serve()
    assert server.url in await refusal(sampler(right, server))


async def test_a_server_that_refuses_the_first_question_is_refused(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Status(400), where=COMPLETIONS)
    assert await refusal(sampler(server)) == f"sampler 'vllm': {server.url} answered 400: injected fault"
    server.faults.add(faults.Status(503), where=COMPLETIONS, times=None)
    assert "HTTP 503: injected fault" in await refusal(sampler(server, timeouts={"retry": 0.05}))


async def test_it_is_used_only_while_it_is_open_and_synced(serve: Serve, adapters: Sequence[Weights]) -> None:
    plugin = sampler(serve())
    assert plugin.metrics() == {}
    with pytest.raises(RuntimeError, match="before open"):
        await plugin.sync(adapters[0])
    async with opened(plugin):
        with pytest.raises(RuntimeError, match="before its first sync"):
            await sample(plugin)
        with pytest.raises(PluginError, match="needs a student that writes its weights to disk"):
            await plugin.sync(Weights(0, "live"))


# Scores


async def test_prompt_logprobs_are_requested_one_at_a_time(serve: Serve, adapters: Sequence[Weights]) -> None:
    server = serve(delay=0.05)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        server.traffic.clear()

        async def score() -> list[Any]:
            return [outcome async for outcome in plugin.score(score_requests(5))]

        both = await asyncio.gather(score(), score())  # two evaluators, say
        assert server.traffic.most_at_once == 1
        await sample(plugin, 6)
        assert server.traffic.most_at_once > 1
    for outcome in (*both[0], *both[1]):
        np.testing.assert_array_equal(outcome.logprobs, truth(model=with_weights(adapters[0])))
        assert outcome.ids_proved
    assert len(both[0]) == len(both[1]) == 5


async def test_scores_that_are_none_are_refused_and_refusals_are_failures(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    server = serve()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        for status, kind in ((400, Failure), (404, object)):
            server.faults.add(faults.Status(status), where=COMPLETIONS)
            (outcome,) = [one async for one in plugin.score(score_requests())]
            assert isinstance(outcome, kind)
        for fault in (faults.WrongId(), faults.BadLogprob(-9999.0), faults.Shorter()):
            server.faults.add(fault, where=COMPLETIONS)
            with pytest.raises(AlignmentError, match=r"score of row .* at http://127"):
                _ = [one async for one in plugin.score(score_requests())]


# Completions


@pytest.mark.parametrize(("temperature", "fine"), [(0.005, False), (0.0, True), (0.01, True)])
async def test_a_temperature_that_vllm_raises_without_a_word_ends_the_run(
    serve: Serve, adapters: Sequence[Weights], temperature: float, fine: bool
) -> None:
    async with opened(sampler(serve())) as plugin:
        await plugin.sync(adapters[0])
        requests = [make_request(temperature=temperature)]
        if fine:
            assert [one async for one in plugin.sample(requests)]
            return
        with pytest.raises(InputError, match=r"samples at temperature 0.01 where it is asked for 0.005"):
            _ = [one async for one in plugin.sample(requests)]


@pytest.mark.parametrize(("temperature", "fine"), [(0.005, False), (0.0, True), (0.01, True)])
def test_a_config_with_such_a_temperature_is_refused_before_anything_is_sampled(
    serve: Serve, fake_config: Callable[..., RunConfig], registry: Registry, temperature: float, fine: bool
) -> None:
    server = serve()
    config = fake_config(student=FakeStudent(sampler=sampler(server)), sampling={"temperature": temperature})
    if fine:
        prepare_run(config, registry, print)
    else:
        with pytest.raises(
            InputError, match=r"sampling\.temperature: 'vllm' does not sample at 0\.005; set it to 0, or"
        ):
            prepare_run(config, registry, print)
    assert set(server.traffic.counts) == {"/v1/models"}


async def test_a_teachers_server_by_another_address_is_found_by_what_it_calls_its_weights(
    serve: Serve, models: Sequence[Weights]
) -> None:
    shared, run = serve(), make_context()
    plugin = sampler(shared)
    teacher = scorer(shared, base_url=shared.url.replace("127.0.0.1", "localhost"))
    for each in (teacher, plugin):
        each.check(run)
        await each.open(run)
    try:
        with pytest.raises(
            InputError, match=r"sampler 'vllm': http://localhost:\d+, which serves teacher 'teacher', has the student's"
        ):
            await plugin.sync(models[0])
    finally:
        await plugin.close()
        await teacher.close()
        await run.shared.release(run.user)


async def test_whole_weights_are_not_pushed_over_those_of_a_teacher(
    serve: Serve, adapters: Sequence[Weights], models: Sequence[Weights]
) -> None:
    """Its scores would be those of the student that it teaches, and look fine."""
    one, shared = serve(), serve()
    for weights, refused in ((models[0], True), (adapters[0], False)):
        run = make_context()
        teacher, plugin = scorer(shared), sampler(one, shared)
        for each in (teacher, plugin):
            each.declare(run)
        for each in (teacher, plugin):
            each.check(run)
            await each.open(run)
        try:
            if refused:
                with pytest.raises(InputError, match=f"{shared.url} also serves teacher 'teacher'"):
                    await plugin.sync(weights)
                assert "/collective_rpc" not in shared.traffic.counts
            else:
                await plugin.sync(weights)
        finally:
            await plugin.close()
            await teacher.close()
            await run.shared.release(run.user)


@pytest.mark.parametrize(("lora_rank", "refused"), [(0, True), (8, False)])
def test_check_refuses_to_push_all_weights_to_a_teachers_server(serve: Serve, lora_rank: int, refused: bool) -> None:
    one, shared, run = serve(), serve(), make_context()
    student, plugin, teacher = LocalStudent(model="m", lora_rank=lora_rank), sampler(one, shared), scorer(shared)
    for each in (student, plugin, teacher):
        each.declare(run)
    if refused:
        with pytest.raises(InputError, match=f"sampler 'vllm': {shared.url} also serves teacher 'teacher'"):
            plugin.check(run)
    else:
        plugin.check(run)
