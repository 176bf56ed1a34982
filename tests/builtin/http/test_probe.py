"""What is found out when a run opens a server: which dialect it speaks, and whether it reads text as we do."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, GENERATE, Serve, post, write_adapter

from builtin.http.checks import checked
from builtin.http.serving import bodies, opened, scorer, truth
from distillkit.errors import InputError
from distillkit.testing import make_context, make_request, make_teacher
from distillkit.types import SamplingParams
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import ByteTokenizer, CategoricalModel
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.transport.messages import Request


@pytest.mark.parametrize(
    ("flavor", "option", "dialect"),
    [
        (Flavor("vllm"), "auto", PromptLogprobs()),
        (Flavor("vllm", ids=False), "auto", PromptLogprobs()),
        (Flavor("vllm"), "echo", Echo()),
        (Flavor("echo"), "auto", Echo()),
        (Flavor("sglang"), "auto", SGLang()),
        (Flavor("sglang"), "echo", Echo(max_tokens=1)),
        (Flavor("sglang", ids=False), "auto", SGLang()),
        (Flavor("sglang"), "sglang", SGLang()),
    ],
    ids=repr,
)
async def test_the_dialect_is_the_first_that_the_server_speaks_or_the_one_that_is_named(
    serve: Serve, flavor: Flavor, option: Any, dialect: Any
) -> None:
    async with opened(scorer(serve(flavor=flavor), dialect=option)) as plugin:
        assert plugin._live.spoken.dialect == dialect


async def test_a_server_that_fails_at_one_dialect_is_tried_in_the_next(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Status(500), times=None, where=lambda request: "prompt_logprobs" in request.fields)
    async with opened(scorer(server)) as plugin:
        assert plugin._live.spoken.dialect == Echo()


async def refusal(plugin: Any) -> str:
    with pytest.raises(InputError) as caught:
        async with opened(plugin):
            pass
    return str(caught.value)


async def test_a_server_that_cannot_prove_ids_is_refused_with_what_each_dialect_got(serve: Serve) -> None:
    server = serve(flavor=Flavor("echo", ids=False))
    message = await refusal(scorer(server))
    assert message.startswith(
        f"teacher 'teacher': {server.url} cannot score given tokens; vLLM gives what is needed as it is"
    )
    assert f"prompt_logprobs (/v1/completions): {server.url}: the server ignores prompt_logprobs" in message
    assert "start it with --return-tokens-as-token-ids (vLLM)" in message
    assert f"sglang (/generate): {server.url} answered 404: Not Found" in message


async def test_a_dialect_that_is_named_is_the_only_one_that_is_tried(serve: Serve) -> None:
    server = serve()
    message = await refusal(scorer(server, dialect="sglang"))
    assert "sglang (/generate)" in message
    assert "prompt_logprobs" not in message
    assert not bodies(server, COMPLETIONS)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (faults.WrongId(), r"the server scored id \d+, not the sampled 46"),
        (faults.Shorter(), "prompt_logprobs where"),
        (faults.BadLogprob(-9999.0), "minus infinity"),
        (faults.Status(400), "answered 400: injected fault"),
    ],
)
async def test_a_server_that_is_wrong_in_every_dialect_is_refused(serve: Serve, fault: Any, message: str) -> None:
    server = serve()
    server.faults.add(fault, where=COMPLETIONS, times=None)
    assert re.search(message, await refusal(scorer(server)))


async def test_every_replica_has_to_speak_the_dialect(serve: Serve) -> None:
    one, other = serve(), serve(flavor=Flavor("echo"))
    async with opened(scorer(one, other)) as plugin:
        assert plugin._live.spoken.dialect == Echo()
    assert f"{other.url}: the server ignores prompt_logprobs" in await refusal(
        scorer(one, other, dialect="prompt_logprobs")
    )


class Swapping(ByteTokenizer):
    """Reads letters with their case swapped."""

    def encode(self, text: str) -> list[int]:
        return list(text.swapcase().encode())


async def test_a_server_with_another_tokenizer_is_refused(serve: Serve) -> None:
    server = serve(CategoricalModel(tokenizer=Swapping()))
    message = await refusal(scorer(server))
    assert message.startswith(f"teacher 'teacher': the server at {server.url} encodes text in another way than")
    assert "set tokenizer_model to the tokenizer of the served model" in message


async def test_a_server_that_cannot_tokenize_is_not_tried_twice(serve: Serve) -> None:
    server = serve(flavor=Flavor("echo"))
    async with opened(scorer(server)):
        assert server.traffic.counts["/tokenize"] == 1


@pytest.mark.parametrize(("temperature", "refused"), [(0.0, False), (1.0, False), (0.7, True)])
async def test_a_teacher_on_an_sglang_with_tempered_logprobs_writes_at_temperatures_where_they_are_raw(
    serve: Serve, temperature: float, refused: bool
) -> None:
    server = serve(flavor=Flavor("sglang"), processed_logprobs=True)
    asked = [replace(make_request(sample=i), params=SamplingParams(4, temperature)) for i in range(3)]
    async with opened(scorer(server, dialect="sglang")) as plugin:
        if refused:
            with pytest.raises(InputError, match=r"teacher 'teacher': .* SGLANG_RETURN_ORIGINAL_LOGPROB=1"):
                _ = [one async for one in plugin.sample(asked)]
            return
        for rollout in [one async for one in plugin.sample(asked)]:
            ids, prompt = rollout.token_ids.tolist(), rollout.request.prompt_ids.tolist()
            np.testing.assert_allclose(rollout.logprobs, truth(ids, prompt), atol=1e-6)


async def test_a_server_that_goes_down_after_check_is_an_input_error_too(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Status(503), where=COMPLETIONS, times=None)
    message = await refusal(scorer(server, timeouts={"retry": 0.05}))
    assert message.startswith(f"teacher 'teacher': {server.url}: HTTP 503: injected fault")


def test_a_key_that_is_refused_is_named_by_its_variable(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(api_key="right")
    with pytest.raises(InputError, match="HTTP 401: Unauthorized; set api_key_env"):
        checked(scorer(server))
    plugin = scorer(server, api_key_env="TEACHER_KEY")
    with pytest.raises(InputError, match="environment variable TEACHER_KEY is not set"):
        checked(plugin)
    monkeypatch.setenv("TEACHER_KEY", "secret-key")
    with pytest.raises(InputError, match=r"HTTP 401: Unauthorized; is \$TEACHER_KEY the right key\?") as caught:
        checked(plugin)
    assert "secret-key" not in str(caught.value)
    monkeypatch.setenv("TEACHER_KEY", "right")
    checked(plugin)


async def test_a_key_that_may_list_and_not_ask_is_refused_at_open(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(api_key="right-key")
    monkeypatch.setenv("TEACHER_KEY", "right-key")
    server.faults.add(faults.Status(403, body={"error": "not with right-key"}), where=COMPLETIONS)
    message = await refusal(scorer(server, api_key_env="TEACHER_KEY"))
    said = "does not allow this, by this key or at all: not with ***; api_key_env names the key's variable"
    assert message == f"teacher 'teacher': {server.url} {said}"


@pytest.mark.parametrize(("flavor", "longest"), [("vllm", 99), ("sglang", 93)])
def test_the_context_length_leaves_the_room_that_servers_keep(serve: Serve, flavor: Any, longest: int) -> None:
    plugin = scorer(serve(flavor=Flavor(flavor), context_length=100))
    plugin.check(make_context())
    assert plugin.context_length(make_context()) == longest


def test_a_name_that_is_no_tokenizer_says_which_option_to_set(serve: Serve, tmp_path: Any) -> None:
    plugin = HttpScorer(base_url=serve().url).bind(make_teacher(model=str(tmp_path / "smol")))
    with pytest.raises(InputError, match="names no tokenizer; set tokenizer_model to the served model's directory"):
        plugin.tokenizer(make_context())


async def test_sglang_is_probed_where_completions_prove_nothing(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang", ids=False))
    async with opened(scorer(server)):
        assert bodies(server, GENERATE)[-1]["logprob_start_len"] == len(bodies(server, COMPLETIONS)[-1]["prompt"]) - 21


@pytest.mark.parametrize("scale_out", [False, True], ids=["whole prompts", "token interface"])
async def test_a_teacher_that_is_an_adapter_is_refused_where_scores_leave_it_out(
    serve: Serve, tmp_path: Any, scale_out: bool
) -> None:
    """vLLM leaves a LoRA on the head out of prompt logprobs, and says nothing; samples have it."""
    server = serve(flavor=Flavor(scale_out=scale_out))
    load = {"lora_name": "mine", "lora_path": write_adapter(tmp_path / "adapter")}
    assert post(server, "/v1/load_lora_adapter", **load).status_code == 200
    async with opened(scorer(server, model="mine")):
        pass
    server.faults.add(faults.OtherWeights(5.0), where=lambda request: "max_tokens" in sampled(request), times=None)
    assert "leaves a LoRA on the head (lm_head) out" in await refusal(scorer(server, model="mine"))
    async with opened(scorer(server)):  # of a base model nothing of the kind is known, and nothing asked
        pass


def sampled(request: Request) -> Any:
    """The fields of a request that samples; of any other none."""
    return request.fields if request.fields.get("seed") is not None else {}
