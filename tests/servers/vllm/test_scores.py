"""Scores and completions of a real vLLM server, held against the local backend."""

import re
from pathlib import Path

import httpx
import numpy as np
import pytest

from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.records import Rollout, ScoreRequest
from distillkit.testing import make_context
from distillkit.types import Message, SampleKey, SampleRequest, SamplingParams, Teacher
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.http.completions import Completions
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.vllm.token_completions import TokenCompletions
from servers.scoring import FLOAT32, PROMPTS, require_local_scores, require_stops, scores
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("dialect", ["prompt_logprobs", "echo"])
async def test_scores_are_those_of_the_local_backend(smol_server: VllmProcess, model: Path, dialect: str) -> None:
    await require_local_scores(smol_server.url, model, dialect)


async def test_stop_ids_and_stop_strings_end_completions_and_stay_in_them(
    smol_server: VllmProcess, model: Path
) -> None:
    await require_stops(smol_server.url, model)


@pytest.mark.parametrize("by_tokens", [False, True], ids=["completions", "tokens"])
@pytest.mark.parametrize(("which", "weights"), [("student_server", "tiny"), ("smol_server", "model")])
async def test_a_samplers_top_k_are_those_of_the_local_backend(
    which: str, weights: str, by_tokens: bool, request: pytest.FixtureRequest
) -> None:
    server, model = request.getfixturevalue(which), request.getfixturevalue(weights)
    tokenizer = HFTokenizer.load(str(model))
    form: CompletionForm = TokenCompletions(tokenizer) if by_tokens else Completions()
    prompt = token_ids(tokenizer.render([Message("user", PROMPTS[0])], {}))
    sampling = SamplingParams(max_tokens=12, temperature=1.5)
    requests = [SampleRequest(SampleKey("1-a", 0, i), prompt, 7 + i, sampling, {"topk": 5}) for i in range(4)]
    async with httpx.AsyncClient(base_url=server.root, timeout=120) as client:
        answers = [await client.post(form.path, json=form.payload(one, "smol")) for one in requests]
    found = [form.parse(a.raise_for_status().json(), r, "smol", 0) for a, r in zip(answers, requests, strict=True)]
    rollouts = [one for one in found if isinstance(one, Rollout)]
    assert len(rollouts) == len(requests)
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(model)))
    ours = await scores(local, [ScoreRequest(one, "smol", prompt, topk=5) for one in rollouts])
    for rollout, score in zip(rollouts, ours, strict=True):
        np.testing.assert_allclose(rollout.arrays["topk_logprobs"], score.arrays["topk_logprobs"], atol=FLOAT32)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("teacher_server", "400: .*requires the V2 model runner"),
        ("uncached_server", "403: Scale-out endpoints are disab"),
    ],
)
async def test_a_server_on_this_cpu_says_what_it_takes_and_is_asked_for_whole_prompts(
    which: str, said: str, tiny: Path, request: pytest.FixtureRequest
) -> None:
    """The CPU build has no V2 model runner; without --enable-scale-out the endpoint is disabled."""
    url, told = request.getfixturevalue(which).url, []
    run = make_context(notify=told.append)
    teacher = Teacher("smol", "smol", tokenizer_model=str(tiny))
    refused, asked = (
        HttpScorer(base_url=url, dialect="vllm_tokens").bind(teacher),
        HttpScorer(base_url=url).bind(teacher),
    )
    refused.check(run)
    with pytest.raises(InputError, match=f"{said}.*--enable-scale-out"):
        await refused.open(run)
    asked.check(run)
    await asked.open(run)
    assert asked.provenance()["dialect"] == "PromptLogprobs"
    await asked.close()
    await run.shared.release(run.user)
    if which == "teacher_server":
        assert re.search(f"whole prompts; .*{said}", *told)
    else:
        assert not told  # it is switched off there, and nobody asked for it
