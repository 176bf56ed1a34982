"""The fields of requests against SGLang's source, and what a real server fills in where one is left out."""

import asyncio
from typing import Any

import pytest

from distillkit_builtin.http.sglang_completions import SGLangCompletions
from distillkit_builtin.remote.generate_fields import GENERATE, GENERATE_BODY, GENERATE_BODY_UNSENT, GENERATE_UNSENT
from distillkit_loopback.openai.sglang_bodies import GenerateBody, GenerateParams
from servers.sampling import measured
from servers.sglang.sglang_process import SGLangProcess
from servers.source_fields import fields_of

pytestmark = pytest.mark.servers
INTERNAL = frozenset(
    {
        *("stop_strs", "stop_regex_strs", "stop_str_max_len", "stop_regex_max_len", "is_normalized"),
        "ebnf_full_assistant",
    }
)
"""Fields of SamplingParams that SGLang fills in itself, and refuses in requests."""


def test_every_sampling_field_is_known() -> None:
    """The tables of fields are of a version; the next one may have a field more, whose default is not neutral."""
    theirs = fields_of(SGLangProcess.python, "sglang", "srt/sampling/sampling_params.py", "SamplingParams") - INTERNAL
    assert {"temperature", "top_k", "repetition_penalty"} <= theirs
    assert theirs == {*GENERATE, *GENERATE_UNSENT, "max_new_tokens"}
    assert theirs == set(GenerateParams.model_fields)


def test_every_field_around_them_is_known() -> None:
    theirs = fields_of(SGLangProcess.python, "sglang", "srt/managers/io_struct.py", "GenerateReqInput")
    asked = {"input_ids", "sampling_params", "return_logprob", "logprob_start_len", "top_logprobs_num"}
    assert {*GENERATE_BODY, *asked} <= theirs
    assert theirs <= {*GENERATE_BODY, *GENERATE_BODY_UNSENT, *asked}
    assert set(GenerateBody.model_fields) <= theirs


async def test_what_a_server_prefers_changes_no_completion(server: SGLangProcess) -> None:
    """`--preferred-sampling-params` count for what requests leave out, which our requests do not."""

    def left_out(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "sampling_params": {"max_new_tokens": body["sampling_params"]["max_new_tokens"]}}

    named = await asyncio.to_thread(measured, server, SGLangCompletions())
    without = await asyncio.to_thread(measured, server, SGLangCompletions(), left_out)
    assert named.untouched, named.finding
    assert not without.untouched, "this SGLang fills in nothing: the test shows nothing any more"
