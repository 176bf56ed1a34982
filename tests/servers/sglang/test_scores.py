"""What a real SGLang samples after each push, held against PEFT and transformers; its prefix cache."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from helpers.tiny_models import VOCABULARY
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from distillkit.arrays import token_ids
from distillkit.context import RunContext
from distillkit.records import Rollout, ScoreRequest, Weights
from distillkit.testing import make_context, make_rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams, Teacher
from distillkit_builtin.http.dialects.dialect import ScoreQuery
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.sglang.sampler import SGLangSampler
from servers.scoring import FLOAT32, scores
from servers.sglang.sglang_process import SGLangProcess

pytestmark = pytest.mark.servers
PROMPT = [1, 2, 3, 4, 50, 60]


@asynccontextmanager
async def opened(server: SGLangProcess, run: RunContext | None = None) -> AsyncIterator[SGLangSampler]:
    sampler, run = SGLangSampler(base_url=server.root), run or make_context()
    sampler.check(run)
    try:
        await sampler.open(run)
        yield sampler
    finally:
        await sampler.close()


def adapted(tiny: Path, folder: Path, seed: int) -> Any:
    """The model in float32 with a LoRA of rank 8 on every linear layer, which is saved in `folder`."""
    torch.manual_seed(seed)
    found = get_peft_model(
        AutoModelForCausalLM.from_pretrained(str(tiny), dtype=torch.float32),
        LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, parameter in found.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    found.save_pretrained(str(folder))
    return found.eval()


@torch.no_grad()
def logprobs(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Any:
    """[R] of the response's tokens, at temperature 1."""
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0].numpy()


def asked(count: int = 4, **params: Any) -> list[SampleRequest]:
    sampling = SamplingParams(**{"max_tokens": 12, "temperature": 1.5, **params})
    return [
        SampleRequest(SampleKey("1-a", 0, i), token_ids(PROMPT), 7 + i, sampling, {"topk": 5}) for i in range(count)
    ]


async def sampled(sampler: SGLangSampler) -> list[Rollout]:
    found = [one async for one in sampler.sample(asked())]
    assert all(isinstance(one, Rollout) for one in found), found
    return [one for one in found if isinstance(one, Rollout)]


async def test_each_pushed_adapter_samples_as_peft_has_it(server: SGLangProcess, tiny: Path, tmp_path: Path) -> None:
    models = [adapted(tiny, tmp_path / f"v{version}", version) for version in range(2)]
    base = AutoModelForCausalLM.from_pretrained(str(tiny), dtype=torch.float32).eval()
    async with opened(server) as sampler:
        for version, peft in enumerate(models):
            await sampler.sync(Weights(version, "peft", tmp_path / f"v{version}"))
            for rollout in await sampled(sampler):
                assert rollout.policy_version == version
                mine, unadapted = (logprobs(one, PROMPT, rollout.token_ids.tolist()) for one in (peft, base))
                np.testing.assert_allclose(rollout.logprobs, mine, atol=FLOAT32)
                assert np.abs(mine - unadapted).max() > 100 * FLOAT32  # so an adapter that is left out shows
                assert np.all(rollout.arrays["topk_logprobs"][:, 0] >= rollout.logprobs)
    served = httpx.get(f"{server.root}/v1/models").json()["data"]
    assert [card["id"] for card in served if card["parent"]] == []


async def test_all_weights_are_replaced_and_no_prefix_of_the_old_ones_is_used(
    tiny: Path, tmp_path: Path, server: SGLangProcess
) -> None:
    """Those of the embedding too, which is the head. They are given back, since the server is of all tests."""
    first = AutoModelForCausalLM.from_pretrained(str(tiny), dtype=torch.float32).eval()
    other = adapted(tiny, tmp_path / "lora", 3).merge_and_unload()
    torch.nn.init.normal_(other.get_input_embeddings().weight, std=0.3)
    other.save_pretrained(str(tmp_path / "whole"))
    try:
        async with opened(server) as sampler:
            for version, (path, expected) in enumerate([(tiny, first), (tmp_path / "whole", other)]):
                await sampler.sync(Weights(version, "safetensors", path))
                for rollout in await sampled(sampler):
                    mine = logprobs(expected, PROMPT, rollout.token_ids.tolist())
                    np.testing.assert_allclose(rollout.logprobs, mine, atol=FLOAT32)
            with httpx.Client(base_url=server.root, timeout=60) as client:
                one, two = (client.post("/generate", json=plain()).json()["meta_info"] for _ in range(2))
            assert (one["cached_tokens"], two["cached_tokens"]) == (0, len(PROMPT) - 1)
    finally:
        server.give_back_weights()


def plain() -> dict[str, Any]:
    return {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 1, "temperature": 0}}


def test_the_prefix_cache_is_read_where_a_response_is_scored(server: SGLangProcess) -> None:
    """200 tokens, of which 160 are of a prompt that another request had: `-s` prints how long both take."""
    rng = np.random.default_rng(0)
    shared = rng.integers(3, VOCABULARY, 160).tolist()
    with httpx.Client(base_url=server.root, timeout=120) as client:
        client.post("/flush_cache").raise_for_status()
        found = []
        for at in range(6):
            query = ScoreQuery("smol", token_ids(shared), token_ids(rng.integers(3, VOCABULARY, 40)))
            began = time.perf_counter()
            meta = client.post("/generate", json=SGLang().payload(query)).raise_for_status().json()["meta_info"]
            found.append((meta["cached_tokens"], time.perf_counter() - began))
            assert meta["cached_tokens"] == (0 if at == 0 else 159)
        whole = {**SGLang().payload(query), "logprob_start_len": 0}
        assert client.post("/generate", json=whole).json()["meta_info"]["cached_tokens"] == 0
    print("\ncached tokens, seconds:", [(cached, round(seconds, 3)) for cached, seconds in found])


@pytest.mark.parametrize("topk", [0, 3])
async def test_the_vocabularys_last_id_is_scored_as_any_other(server: SGLangProcess, tiny: Path, topk: int) -> None:
    """SGLang names it 0."""
    answers = ([VOCABULARY - 1], [50, VOCABULARY - 1, 0, 60, VOCABULARY - 1])
    requests = [
        ScoreRequest(make_rollout(answer, sample=i), "tiny", token_ids(PROMPT), topk=topk)
        for i, answer in enumerate(answers)
    ]
    remote = HttpScorer(base_url=server.root).bind(Teacher("tiny", server.name, tokenizer_model=str(tiny)))
    local = LocalScorer(device="cpu", dtype="float32").bind(Teacher("tiny", str(tiny)))
    for mine, other in zip(await scores(local, requests), await scores(remote, requests), strict=True):
        assert other.ids_proved
        np.testing.assert_allclose(other.logprobs, mine.logprobs, atol=FLOAT32)
