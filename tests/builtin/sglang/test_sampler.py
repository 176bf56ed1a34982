"""Sampler `sglang` between check and close: what it asks of a server, and what it refuses."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import GENERATE, Serve

from builtin.http.serving import bodies, opened, score_requests, table_at, truth
from builtin.sglang.pushes import sampler
from builtin.vllm.pushes import with_weights
from distillkit.errors import AlignmentError, InputError
from distillkit.records import Failure, Rollout, Weights
from distillkit.testing import make_context, make_request
from distillkit_builtin.sglang.sampler import SGLangSampler
from distillkit_loopback.openai import faults
from distillkit_loopback.transport.faults import GenerationConfig
from distillkit_loopback.transport.messages import Request

EVERY_ID = np.arange(259)


async def refusal(plugin: SGLangSampler, run: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        async with opened(plugin, run):
            pass
    return str(caught.value)


def test_check_says_what_serves_and_asks_for_no_name(served: Serve) -> None:
    one, other = served(name="smol"), served(name="smol")
    assert sampler(one).check(make_context()).notes == (f"sampler: smol at {one.url}",)
    assert sampler(one, other, model="smol").check(make_context()).notes == (f"sampler: smol at {one.url} and 1 more",)
    with pytest.raises(InputError, match=r"sampler 'sglang': .* serves no model 'small'; did you mean 'smol'"):
        sampler(one, model="small").check(make_context())


def test_another_kind_of_server_is_no_sglang(serve: Serve) -> None:
    with pytest.raises(InputError, match="/server_info: HTTP 404: Not Found"):
        sampler(serve()).check(make_context())
    server = serve()
    server.faults.add(faults.Status(200, body={"version": "0.4"}), where="/server_info")
    with pytest.raises(InputError, match=r"0\.5\.23 or newer\? \(served_model_name: Field required\)"):
        sampler(server).check(make_context())


async def test_its_name_is_that_of_the_start_although_weights_were_replaced(
    served: Serve, models: Sequence[Weights]
) -> None:
    """SGLang calls its model by the path of the weights that it was given last."""
    server = served(name="smol")
    async with opened(sampler(server, model="smol")) as plugin:
        await plugin.sync(models[0])
    assert server.catalogue.name == str(models[0].path)
    async with opened(sampler(server, model="smol")) as plugin:
        assert plugin.provenance()["model"] == "smol"


async def test_prompts_that_do_not_fit_are_refused_at_open(served: Serve) -> None:
    """SGLang cuts a completion two tokens before its context ends, and says nothing."""
    short, enough = served(context_length=81), served(context_length=82)
    message = await refusal(sampler(enough, short))
    assert message.startswith(
        f"sampler 'sglang': prompt and completion take up to 80 tokens, and loopback at {short.url} takes 79; start "
        "SGLang with --context-length 82 or more"
    )


async def test_a_memory_that_holds_less_than_the_context_is_refused_at_open(served: Serve) -> None:
    server, said = served(), {"served_model_name": "loopback", "max_req_input_len": 75}
    server.faults.add(faults.Status(200, body=said), where="/server_info", times=2)
    assert f"loopback at {server.url} takes 79; start" in await refusal(sampler(server))


async def test_a_server_whose_weights_have_two_names_at_once_is_refused(served: Serve) -> None:
    """There would be no saying later whether an adapter's base model is what it was."""
    server = served()
    spans = [{"version": name, "start": at, "end": at + 1} for at, name in enumerate("ab")]

    def is_named(request: Request) -> bool:
        params = request.fields.get("sampling_params")
        return isinstance(params, dict) and params["max_new_tokens"] == 4

    meta = {**META, "finish_reason": {"type": "stop"}, "weight_version": "b", "weight_versions": spans}
    meta["output_token_logprobs"] = [[-1.0, 5, None], [-2.0, 6, None]]
    body = {"text": "", "output_ids": [5, 6], "meta_info": meta}
    for fault in (faults.Delay(0.0), faults.Delay(0.0), faults.Status(200, body=body)):  # both probes come before
        server.faults.add(fault, where=is_named)
    with pytest.raises(AlignmentError, match=r"its tokens are of several weights \(a, b\)"):
        async with opened(sampler(server)):
            pass


async def test_tempered_logprobs_which_are_the_default_are_refused_with_how_to_start_it(served: Serve) -> None:
    right, tempered = served(), served(processed_logprobs=True)
    message = await refusal(sampler(right, tempered))
    assert re.match(
        rf"sampler 'sglang': {tempered.url} reports logprobs of what it sampled that differ by \d\.\d\d nats", message
    )
    assert message.endswith("start it with SGLANG_RETURN_ORIGINAL_LOGPROB=1 in its environment")


async def test_what_no_request_can_switch_off_is_found(served: Serve) -> None:
    server = served()

    def is_plain(request: Request) -> bool:
        params = request.fields.get("sampling_params")
        return isinstance(params, dict) and params["temperature"] == 1.0 and params["max_new_tokens"] > 0

    server.faults.add(GenerationConfig({"top_k": 1}, forced=True), times=None, where=is_plain)
    message = await refusal(sampler(server))
    assert f"{server.url} samples from another distribution than the one whose logprobs it reports" in message
    assert "Start SGLang without watermarks" in message


async def test_a_server_that_marks_its_completions_is_refused(served: Serve) -> None:
    server = served()
    said = {"served_model_name": "loopback", "watermark_enforce_all": True}
    server.faults.add(faults.Status(200, body=said), where="/server_info", times=2)
    assert "marks all that it samples" in await refusal(sampler(server))
    assert GENERATE not in server.traffic.counts


async def test_a_server_that_ignores_seeds_is_said(served: Serve) -> None:
    seeded, unseeded, told = served(), served(), []
    unseeded.faults.add(faults.Status(200, body={"served_model_name": "loopback"}), where="/server_info", times=2)
    async with opened(sampler(seeded, unseeded), make_context(notify=told.append)):
        pass
    assert len(told) == 1
    assert f"{unseeded.url}: completions do not follow from the run's seed" in told[0]
    assert "--enable-deterministic-inference" in told[0]


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_server_that_refuses_the_first_question_is_refused(served: Serve, status: int) -> None:
    server = served()
    server.faults.add(faults.Status(status), where=GENERATE)
    assert await refusal(sampler(server)) == f"sampler 'sglang': {server.url} answered {status}: injected fault"


async def test_the_most_probable_come_with_each_sampled_token(served: Serve, adapters: Sequence[Weights]) -> None:
    needing = replace(make_context(), sampler_needs={"topk": 3})
    asked = [replace(make_request(sample=i, max_tokens=6), wanted={"topk": 3}) for i in range(4)]
    async with opened(sampler(served()), needing) as plugin:
        assert plugin.sampling_capabilities() == {"topk": None}
        await plugin.sync(adapters[0])
        found = [outcome async for outcome in plugin.sample(asked)]
    for rollout in found:
        assert isinstance(rollout, Rollout)
        ids = rollout.token_ids.tolist()
        prompt, model = rollout.request.prompt_ids.tolist(), with_weights(adapters[0])
        whole = table_at(np.tile(EVERY_ID, (len(ids), 1)), ids, prompt, model)
        best = np.argsort(-whole, axis=1, kind="stable")[:, :3]
        assert rollout.arrays["topk_ids"].tolist() == best.tolist()
        np.testing.assert_array_equal(rollout.arrays["topk_logprobs"], np.take_along_axis(whole, best, axis=1))


async def test_scores_are_of_the_adapter_and_many_at_once(served: Serve, adapters: Sequence[Weights]) -> None:
    server = served(delay=0.05)
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        server.traffic.clear()
        found = [outcome async for outcome in plugin.score(score_requests(5))]
        assert server.traffic.most_at_once > 1
    for outcome in found:
        np.testing.assert_array_equal(outcome.logprobs, truth(model=with_weights(adapters[0])))
        assert outcome.ids_proved
    (name,) = {body["lora_path"] for body in bodies(server, GENERATE)}
    assert re.fullmatch(r"distillkit-\w+-v0", name)


META = {"finish_reason": {"type": "length"}, "weight_version": "default"}


def answer(server: Any, meta: dict[str, Any], ids: Sequence[int] = (5, 6)) -> None:
    """Its next completion."""
    logprobs = [[-1.0, 5, None], [-2.0, 6, None]]
    body = {"text": "", "output_ids": [*ids], "meta_info": {**META, "output_token_logprobs": logprobs, **meta}}
    server.faults.add(faults.Status(200, body=body), where=GENERATE)


@pytest.mark.parametrize(
    ("meta", "ids", "message"),
    [
        ({}, (5, 7), "token 1 is id 7, and its logprob that of 6"),
        ({"output_token_logprobs": None}, (5, 6), "holds no output_token_logprobs"),
        ({"weight_version": None}, (5, 6), "names no weight_version; use SGLang 0.5.23 or newer"),
        ({"weight_versions": [{"version": "default", "start": 0, "end": 1}]}, (5, 6), "whose 1 of 2 tokens are"),
        ({"prompt_tokens": 1, "weight_version": "default"}, (5, 6), r"the server read 1 prompt tokens, \d+ were sent"),
    ],
)
async def test_what_is_no_whole_answer_ends_the_run(
    served: Serve, adapters: Sequence[Weights], meta: dict[str, Any], ids: Sequence[int], message: str
) -> None:
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        answer(server, meta, ids)
        with pytest.raises(AlignmentError, match=message):
            _ = [one async for one in plugin.sample([make_request(max_tokens=2)])]


async def test_a_completion_that_the_server_gave_up_is_a_failure(served: Serve, adapters: Sequence[Weights]) -> None:
    server = served()
    async with opened(sampler(server)) as plugin:
        await plugin.sync(adapters[0])
        answer(server, {"finish_reason": {"type": "abort", "message": "Aborted by pause_generation"}})
        (failure,) = [one async for one in plugin.sample([make_request(max_tokens=2)])]
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert failure.reason == "the completion ended by 'abort'"
