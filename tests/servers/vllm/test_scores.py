"""Scores and completions of a real vLLM server, held against the local backend."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from servers.scoring import FLOAT32, PROMPTS, requests_of, scores
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("dialect", ["prompt_logprobs", "echo"])
async def test_scores_are_those_of_the_local_backend(teacher_server: VllmProcess, model: Path, dialect: str) -> None:
    requests = requests_of(model, topk=3)
    remote = HttpScorer(base_url=teacher_server.url, dialect=dialect)  # type: ignore[arg-type]
    theirs = await scores(remote.bind(Teacher("smol", "smol", tokenizer_model=str(model))), requests)
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(model)))
    ours = await scores(local, requests)
    for mine, other in zip(ours, theirs, strict=True):
        assert other.ids_proved
        np.testing.assert_allclose(other.logprobs, mine.logprobs, atol=FLOAT32)
        best = other.arrays["topk_logprobs"]
        assert best.shape == (len(mine.logprobs), 3)
        assert np.all(np.diff(best, axis=1) <= 0)
        assert np.all(best[:, 0] >= other.logprobs)
        np.testing.assert_allclose(best, mine.arrays["topk_logprobs"], atol=FLOAT32)


async def test_stop_ids_and_stop_strings_end_completions_and_stay_in_them(
    teacher_server: VllmProcess, model: Path
) -> None:
    tokenizer = HFTokenizer.load(str(model))
    prompt = token_ids(tokenizer.render([Message("user", PROMPTS[0])], {}))
    scorer = HttpScorer(base_url=teacher_server.url).bind(Teacher("smol", "smol", tokenizer_model=str(model)))
    run = make_context(teachers=[scorer.teacher])
    scorer.check(run)
    run = replace(run, tokenizer=scorer.tokenizer(run))  # a student that reads the same ids, which the top-K are of
    await scorer.open(run)

    async def greedy(**params: Any) -> Rollout:
        sampling = SamplingParams(**{"max_tokens": 12, "temperature": 0.0, **params})
        (found,) = [one async for one in scorer.sample([SampleRequest(SampleKey("1-a", 0, 0), prompt, 7, sampling)])]
        assert isinstance(found, Rollout), found
        return found

    try:
        free = await greedy()
        ids = free.token_ids.tolist()
        at = next(at for at in range(3, 12) if ids[at] not in ids[:at])
        text = tokenizer.decode(ids[: at + 1])
        own = tokenizer.special_tokens()["<|im_end|>"]
        for params in (
            {"stop_ids": (own, ids[at])},
            {"stop_ids": (ids[at],), "max_tokens": at + 1},
            {"stop": (text[-6:],)},
            {"stop": (text[-6:],), "max_tokens": at + 1},
        ):
            cut = await greedy(**params)
            assert cut.token_ids.tolist() == ids[: at + 1]
            assert (cut.finish_reason, cut.text) == ("stop", text)
            np.testing.assert_allclose(cut.logprobs, free.logprobs[: at + 1], atol=FLOAT32)
        assert (await greedy(max_tokens=at + 1)).finish_reason == "length"
    finally:
        await scorer.close()
        await run.shared.release(run.user)


@pytest.mark.parametrize("by_tokens", [False, True], ids=["completions", "tokens"])
async def test_a_samplers_top_k_are_those_of_the_local_backend(
    student_server: VllmProcess, model: Path, by_tokens: bool
) -> None:
    tokenizer = HFTokenizer.load(str(model))
    form: CompletionForm = TokenCompletions(tokenizer) if by_tokens else Completions()
    prompt = token_ids(tokenizer.render([Message("user", PROMPTS[0])], {}))
    sampling = SamplingParams(max_tokens=12, temperature=1.5)
    requests = [SampleRequest(SampleKey("1-a", 0, i), prompt, 7 + i, sampling, {"topk": 5}) for i in range(4)]
    async with httpx.AsyncClient(base_url=student_server.root, timeout=120) as client:
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
    which: str, said: str, model: Path, request: pytest.FixtureRequest
) -> None:
    """The CPU build has no V2 model runner; without --enable-scale-out the endpoint is disabled."""
    url, told = request.getfixturevalue(which).url, []
    run = make_context(notify=told.append)
    teacher = Teacher("smol", "smol", tokenizer_model=str(model))
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
