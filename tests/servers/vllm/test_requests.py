"""The fields of requests against vLLM's source, and what a real server fills in where one is left out."""

import ast
import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from distillkit.arrays import token_ids
from distillkit.probe.sampling_test import SamplingTest, untouched_sampling
from distillkit.records import Rollout
from distillkit.testing import make_context
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.http.completions import Completions
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.remote.request_fields import COMPLETIONS, COMPLETIONS_UNSENT
from distillkit_builtin.remote.token_fields import TOKENS, TOKENS_BODY, TOKENS_BODY_UNSENT, TOKENS_UNSENT
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_builtin.vllm.token_completions import TokenCompletions
from distillkit_loopback.openai.bodies import CompletionBody, TokensBody, TokensParams
from servers.vllm.conftest import GENERATION_CONFIG
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers


def fields_of(module: str, name: str) -> set[str]:
    """The fields of a class in vLLM's source."""
    where = "import importlib.util as u; print(u.find_spec('vllm').submodule_search_locations[0])"
    package = Path(subprocess.check_output([VllmProcess.python, "-c", where], text=True).strip())
    tree = ast.parse((package / module).read_text(encoding="utf-8"))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    fields = {n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return {field for field in fields if not field.startswith("_")}


def test_every_field_of_its_token_requests_is_known() -> None:
    theirs = fields_of("sampling_params.py", "SamplingParams")
    ours = {"max_tokens", "prompt_logprob_token_ids", "prompt_logprob_start"}
    assert theirs <= {*TOKENS, *TOKENS_UNSENT, *ours}
    assert {*TOKENS, *ours} <= theirs
    assert set(TokensParams.model_fields) <= theirs
    body = fields_of("entrypoints/scale_out/token_in_token_out/protocol.py", "GenerateRequest")
    assert body == {*TOKENS_BODY, *TOKENS_BODY_UNSENT, "model", "token_ids", "sampling_params"}
    assert set(TokensBody.model_fields) <= body


def test_every_field_of_its_requests_is_known() -> None:
    """The tables of fields are of versions; the next one may have a field more, whose default is not neutral."""
    theirs = fields_of("entrypoints/openai/completion/protocol.py", "CompletionRequest")
    assert {"temperature", "top_k", "repetition_penalty"} <= theirs
    assert theirs <= {*COMPLETIONS, *COMPLETIONS_UNSENT, "model", "prompt", "max_tokens"}
    assert theirs <= set(CompletionBody.model_fields)
    assert set(COMPLETIONS) <= theirs


NO_SAMPLING_FIELD = frozenset({"model", "prompt", "max_tokens", "seed", "logprobs", "return_token_ids"})
Change = Callable[[dict[str, Any]], dict[str, Any]]


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


async def test_nor_one_of_the_token_interface(teacher_server: VllmProcess, model: Path) -> None:
    """It takes nothing from that file; a field that says the same is heard, so the measurement would find it."""

    def said(body: dict[str, Any]) -> dict[str, Any]:
        return {**body, "sampling_params": {**body["sampling_params"], **GENERATION_CONFIG}}

    form = TokenCompletions(HFTokenizer.load(str(model)))
    named = await asyncio.to_thread(measured, teacher_server, form)
    greedy = await asyncio.to_thread(measured, teacher_server, form, said)
    assert named.untouched, named.finding
    assert not greedy.untouched


def measured(server: VllmProcess, form: CompletionForm, change: Change | None = None) -> SamplingTest:
    """The test of 3 x 64 first tokens by our requests, changed where there is a `change`."""
    groups = []
    with httpx.Client(base_url=server.root, timeout=120) as client:
        for prompt in ([1, 2, 3, 4], [1, 2, 3, 4] * 4, [100, 2000, 3000]):
            group = []
            for seed in range(64):
                request = SampleRequest(SampleKey("r", 0, seed), token_ids(prompt), seed, SamplingParams(1))
                body: Any = form.payload(request, "smol")
                answer = client.post(form.path, json=body if change is None else change(body)).raise_for_status()
                found = form.parse(answer.json(), request, "smol", 0)
                assert isinstance(found, Rollout), found
                group.append((int(found.token_ids[0]), float(found.logprobs[0])))
            groups.append(group)
    return untouched_sampling(groups)
