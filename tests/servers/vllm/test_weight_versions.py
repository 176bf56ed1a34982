"""A real vLLM that says which weights sampled each token: whole weights pushed by label, adapters by name."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
import pytest

from distillkit.arrays import token_ids
from distillkit.records import Rollout, ScoreRequest, Weights
from distillkit.testing import make_context
from distillkit.types import SampleKey, SampleRequest, SamplingParams, Teacher
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions
from servers.scoring import FLOAT32, scores
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers
Answer = TypeVar("Answer")
PROMPT = token_ids([1, 2, 3, 4])
LONG = 150
"""Tokens: some seconds, in which a label can change."""
SEEDS = range(9, 17)
"""Of a long completion: where one ends too early on some machine, another does not."""


@asynccontextmanager
async def opened(server: VllmProcess, tokenizer: HFTokenizer) -> AsyncIterator[VllmSampler]:
    run = replace(make_context(), tokenizer=tokenizer)
    sampler = VllmSampler(base_url=server.url)
    sampler.check(run)
    await sampler.open(run)
    try:
        yield sampler
    finally:
        await sampler.close()


def generated(server: VllmProcess) -> float:
    """How many tokens the server has sampled; a completion's count while it is under way."""
    lines = httpx.get(f"{server.root}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total"))


async def relabelled(server: VllmProcess, new: str, start: Callable[[SampleRequest], Awaitable[Answer]]) -> Answer:
    """What `start` gives for a long completion in whose middle the server's weights are called `new`."""
    before = await asyncio.to_thread(label, server)
    for seed in SEEDS:
        sampled_before = await asyncio.to_thread(generated, server)
        long = asyncio.ensure_future(start(asked(seed, LONG)))
        while not long.done() and await asyncio.to_thread(generated, server) <= sampled_before + 1:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(label, server, new)
        then = await asyncio.to_thread(generated, server)
        answer = await long
        if await asyncio.to_thread(generated, server) > then + 1:  # one may have been sampled, but not counted yet
            return answer
        await asyncio.to_thread(label, server, before)  # the completion had ended: by its end-of-sequence token
    raise AssertionError(f"no completion of {LONG} tokens was long enough to rename the weights in its middle")


def asked(seed: int, tokens: int = 8) -> SampleRequest:
    return SampleRequest(SampleKey("r", 0, seed), PROMPT, seed, SamplingParams(tokens, 1.3))


async def sampled(sampler: VllmSampler, *requests: SampleRequest) -> list[Rollout]:
    found = [one async for one in sampler.sample(requests)]
    rollouts = [one for one in found if isinstance(one, Rollout)]
    assert len(rollouts) == len(requests), found
    return sorted(rollouts, key=lambda rollout: rollout.key)


def label(server: VllmProcess, new: str | None = None) -> str:
    """What the server calls its weights, once it calls them `new`."""
    if new is not None:
        httpx.post(f"{server.root}/update_weight_version", json={"new_version": new}, timeout=60).raise_for_status()
    return str(httpx.get(f"{server.root}/weight_info", timeout=60).json()["weight_version"])


async def test_whole_weights_count_by_the_label_in_their_answers(
    smol_server: VllmProcess, served_model: Path, model: Path
) -> None:
    """The weights that are pushed are those that are there, so that other tests find the server as it was."""
    tokenizer = HFTokenizer.load(str(model))
    async with opened(smol_server, tokenizer) as sampler:
        assert sampler.provenance()["completions"] == TokenCompletions.path
        await sampler.sync(Weights(3, "safetensors", served_model))
        first = await sampled(sampler, *map(asked, range(4)))
        ours = label(smol_server)
        assert ours.endswith("-v3")
        assert await asyncio.to_thread(label, smol_server, "somebody else") == "somebody else"
        again = await sampled(sampler, *map(asked, range(4)))
        assert label(smol_server) == ours  # they were pushed again before anything counted
        long = await relabelled(smol_server, "in the middle", lambda request: sampled(sampler, request))
        assert [rollout.policy_version for rollout in long] == [3]
        assert label(smol_server) == ours
    for one, other in zip(first, again, strict=True):
        assert (one.policy_version, other.policy_version) == (3, 3)
        assert one.token_ids.tolist() == other.token_ids.tolist()
        assert one.text == tokenizer.decode(one.token_ids.tolist())
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("smol", str(model)))
    for rollout, score in zip(
        first, await scores(local, [ScoreRequest(one, "smol", PROMPT) for one in first]), strict=True
    ):
        np.testing.assert_allclose(rollout.logprobs, score.logprobs, atol=FLOAT32)


async def test_an_answer_names_each_weights_that_sampled_a_part_of_it(smol_server: VllmProcess, model: Path) -> None:
    form, before = TokenCompletions(HFTokenizer.load(str(model))), label(smol_server)
    async with httpx.AsyncClient(base_url=smol_server.root, timeout=300) as client:
        answer = await relabelled(
            smol_server, "later", lambda request: client.post(form.path, json=form.payload(request, "smol"))
        )
    body = answer.raise_for_status().json()
    label(smol_server, before)
    assert weight_versions(body, "this") == {before, "later"}
