"""Every field of a request: sent with its neutral value, or left out for a reason that is written down."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import RESPONSE, bodies, opened, scorer
from builtin.vllm.pushes import sampler
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.testing import ByteTokenizer, make_request
from distillkit.types import SamplingParams
from distillkit_builtin.http.completions import completion_payload
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.sglang_completions import SGLangCompletions
from distillkit_builtin.remote import generate_fields, request_fields, token_fields
from distillkit_builtin.vllm.token_completions import TokenCompletions
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.bodies import (
    CompletionBody,
    TokensBody,
    TokensParams,
    sampling_params,
)
from distillkit_loopback.openai.sglang_bodies import GenerateBody, GenerateParams

TABLES = {
    "completions": (request_fields.COMPLETIONS, request_fields.COMPLETIONS_UNSENT),
    "tokens": (token_fields.TOKENS, token_fields.TOKENS_UNSENT),
    "tokens, body": (token_fields.TOKENS_BODY, token_fields.TOKENS_BODY_UNSENT),
    "generate": (generate_fields.GENERATE, generate_fields.GENERATE_UNSENT),
    "around generate": (generate_fields.GENERATE_BODY, generate_fields.GENERATE_BODY_UNSENT),
    "fireworks": (request_fields.FIREWORKS, request_fields.FIREWORKS_UNSENT),
}
NEUTRAL = SamplingParams(7)


def query() -> ScoreQuery:
    return ScoreQuery("m", token_ids([1, 2]), token_ids(RESPONSE), 3)


def sent_to_completions() -> dict[str, Mapping[str, Any]]:
    dialects: list[Dialect] = [Echo(), Echo(max_tokens=1), PromptLogprobs(), PromptLogprobs(max_tokens=1)]
    return {
        "sampling": completion_payload(make_request(max_tokens=7), "m"),
        **{repr(dialect): dialect.payload(query()) for dialect in dialects},
    }


@pytest.mark.parametrize("what", sent_to_completions())
def test_each_field_of_a_completion_is_sent_or_has_a_reason(what: str) -> None:
    payload = sent_to_completions()[what]
    known = set(CompletionBody.model_fields)
    assert known - set(payload) - set(request_fields.COMPLETIONS_UNSENT) == set()
    assert set(payload) <= known
    assert set(request_fields.COMPLETIONS) <= set(payload)
    CompletionBody.model_validate(payload)


def sent_to_generate() -> dict[str, Mapping[str, Any]]:
    return {
        "sampling": SGLangCompletions(adapter=True).payload(make_request(max_tokens=0), "m"),
        "scoring": SGLang().payload(query()),
    }


@pytest.mark.parametrize("what", sent_to_generate())
def test_each_field_of_generate_is_sent_or_has_a_reason(what: str) -> None:
    payload: Any = sent_to_generate()[what]
    for sent, body, reasons in (
        (payload, GenerateBody, generate_fields.GENERATE_BODY_UNSENT),
        (payload["sampling_params"], GenerateParams, generate_fields.GENERATE_UNSENT),
    ):
        known = set(body.model_fields)
        assert known - set(sent) - set(reasons) == set()
        assert set(sent) <= known
    assert {*generate_fields.GENERATE_BODY} <= set(payload)
    assert {*generate_fields.GENERATE} <= set(payload["sampling_params"])
    assert sampling_params(GenerateBody.model_validate(payload).sampling_params) == sampling_params(
        GenerateParams(max_new_tokens=0, temperature=1.0)
    )


def test_what_a_config_asks_for_is_sent_to_generate() -> None:
    request = replace(make_request(), params=SamplingParams(7, 0.6, 0.9, 40, ("\n",), (5,)), wanted={"topk": 3})
    payload: Any = SGLangCompletions(adapter=True).payload(request, "mine")
    sent = payload["sampling_params"]
    asked = ("max_new_tokens", "temperature", "top_p", "top_k", "stop", "stop_token_ids", "sampling_seed")
    assert [sent[name] for name in asked] == [7, 0.6, 0.9, 40, ["\n"], [5], request.seed]
    assert sent["no_stop_trim"] is True
    assert (payload["lora_path"], payload["top_logprobs_num"]) == ("mine", 3)
    assert SGLangCompletions().payload(request, "base")["lora_path"] is None


def sent_to_the_token_interface() -> dict[str, Mapping[str, Any]]:
    return {
        "sampling": TokenCompletions(ByteTokenizer()).payload(make_request(max_tokens=7), "m"),
        "scoring": VllmTokens().payload(query()),
    }


@pytest.mark.parametrize("what", sent_to_the_token_interface())
def test_each_field_of_the_token_interface_is_sent_or_has_a_reason(what: str) -> None:
    payload: Any = sent_to_the_token_interface()[what]
    for sent, body, table, reasons in (
        (payload, TokensBody, token_fields.TOKENS_BODY, token_fields.TOKENS_BODY_UNSENT),
        (payload["sampling_params"], TokensParams, token_fields.TOKENS, token_fields.TOKENS_UNSENT),
    ):
        known = set(body.model_fields)
        assert known - set(sent) - set(reasons) == set()
        assert set(sent) <= known
        assert set(table) <= set(sent)
    read = sampling_params(TokensBody.model_validate(payload).sampling_params)
    assert read == sampling_params(TokensParams(max_tokens=read.max_tokens, temperature=1.0))


@pytest.mark.parametrize("name", TABLES)
def test_no_field_is_in_both_tables_and_each_reason_says_something(name: str) -> None:
    sent, unsent = TABLES[name]
    assert not set(sent) & set(unsent)
    assert all(len(reason) > 10 for reason in unsent.values())


def test_neutral_values_are_what_a_server_without_defaults_of_its_own_does() -> None:
    payload = completion_payload(make_request(max_tokens=7), "m")
    read = sampling_params(CompletionBody.model_validate(payload))
    assert read == sampling_params(CompletionBody(prompt=(1,), max_tokens=7))
    assert [getattr(read, name) for name in NEUTRAL.__dataclass_fields__] == [
        getattr(NEUTRAL, name) for name in NEUTRAL.__dataclass_fields__
    ]


def test_what_a_config_asks_for_is_sent() -> None:
    request = replace(make_request(), params=SamplingParams(7, 0.6, 0.9, 40, ("\n",)))
    sent = completion_payload(request, "m")
    assert [sent[name] for name in ("max_tokens", "temperature", "top_p", "top_k", "stop")] == [7, 0.6, 0.9, 40, ["\n"]]
    assert sent["include_stop_str_in_output"] is True


MESSAGES = [
    "Unrecognized request arguments supplied: min_p, top_k",
    "[{'type': 'extra_forbidden', 'loc': ('body', 'repetition_penalty'), 'msg': 'Extra inputs are not permitted'}]",
]


@pytest.mark.parametrize("message", MESSAGES)
async def test_a_server_that_does_not_know_a_field_is_refused_with_what_to_do(serve: Serve, message: str) -> None:
    server = serve()
    server.faults.add(faults.Status(400, message=message), times=None, where=COMPLETIONS)
    for plugin in (scorer(server), sampler(server)):
        with pytest.raises(InputError, match="is not left out silently: use a server that knows it"):
            async with opened(plugin):
                pass
    assert {"top_k", "min_p"} <= set(bodies(server, COMPLETIONS)[-1])


def test_other_refusals_are_left_as_they_are() -> None:
    for message in ("temperature must be at most 2", "unknown model", "injected fault"):
        assert request_fields.refused_field(message) == ""
