"""The fields of requests against vLLM's source, and what a real server fills in where one is left out."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from distillkit.testing import make_context
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.http.completions import Completions
from distillkit_builtin.remote.request_fields import COMPLETIONS, COMPLETIONS_UNSENT
from distillkit_builtin.remote.token_fields import TOKENS, TOKENS_BODY, TOKENS_BODY_UNSENT, TOKENS_UNSENT
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_builtin.vllm.token_completions import TokenCompletions
from distillkit_loopback.openai.bodies import CompletionBody, TokensBody, TokensParams
from servers.sampling import measured
from servers.source_fields import fields_of
from servers.vllm.conftest import GENERATION_CONFIG
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers


def test_every_field_of_its_token_requests_is_known() -> None:
    theirs = fields_of(VllmProcess.python, "vllm", "sampling_params.py", "SamplingParams")
    assert theirs == {*TOKENS, *TOKENS_UNSENT, "max_tokens"}
    assert set(TokensParams.model_fields) <= theirs
    body = fields_of(
        VllmProcess.python, "vllm", "entrypoints/scale_out/token_in_token_out/protocol.py", "GenerateRequest"
    )
    assert body == {*TOKENS_BODY, *TOKENS_BODY_UNSENT, "model", "token_ids", "sampling_params"}
    assert set(TokensBody.model_fields) <= body


def test_every_field_of_its_requests_is_known() -> None:
    """The tables of fields are of versions; the next one may have a field more, whose default is not neutral."""
    theirs = fields_of(VllmProcess.python, "vllm", "entrypoints/openai/completion/protocol.py", "CompletionRequest")
    assert {"temperature", "top_k", "repetition_penalty"} <= theirs
    assert theirs <= {*COMPLETIONS, *COMPLETIONS_UNSENT, "model", "prompt", "max_tokens"}
    assert theirs <= set(CompletionBody.model_fields)
    assert set(COMPLETIONS) <= theirs


NO_SAMPLING_FIELD = frozenset({"model", "prompt", "max_tokens", "seed", "logprobs", "return_token_ids"})


async def test_what_a_model_directory_says_of_sampling_changes_no_completion(cached_or_not: VllmProcess) -> None:
    """vLLM takes a model's generation_config.json for what requests leave out, which our requests do not."""

    def left_out(body: dict[str, Any]) -> dict[str, Any]:
        return {name: body[name] for name in NO_SAMPLING_FIELD}

    named = await asyncio.to_thread(measured, cached_or_not, Completions())
    without = await asyncio.to_thread(measured, cached_or_not, Completions(), left_out)
    assert named.untouched, named.finding
    assert not without.untouched, "this vLLM fills in nothing: the test shows nothing any more"
    sampler = VllmSampler(base_url=cached_or_not.url)
    run = make_context()
    sampler.check(run)
    await sampler.open(run)  # measures it too, and finds nothing
    await sampler.close()


async def test_nor_one_of_the_token_interface(teacher_server: VllmProcess, tiny: Path) -> None:
    """It takes nothing from that file; a field that says the same is heard, so the measurement would find it."""

    def said(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "sampling_params": {**body["sampling_params"], **GENERATION_CONFIG}}

    form = TokenCompletions(HFTokenizer.load(str(tiny)))
    named = await asyncio.to_thread(measured, teacher_server, form)
    greedy = await asyncio.to_thread(measured, teacher_server, form, said)
    assert named.untouched, named.finding
    assert not greedy.untouched
