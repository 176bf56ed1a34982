"""The loopback service's completions in every form that the SDK asks for, and reads."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fireworks.training.sdk")

import httpx
import torch
from builtin.fireworks.conftest import SERVED, ask
from fireworks.training.sdk import DeploymentSampler, FiretitanSamplingClient, types

from distillkit_loopback.fireworks import faults
from distillkit_loopback.fireworks.service import LoopbackService
from loopback.fireworks.sdk_calls import read

if TYPE_CHECKING:
    SamplerOf = Callable[..., DeploymentSampler]

PROMPT = [1, 70, 80, 90, 75]
SCORING = {"max_tokens": 1, "temperature": 0.0}


def best_of(source: str, ids: list[int], count: int) -> Any:
    """The model's `count` best candidates for each token after the first."""
    with torch.no_grad():
        logprobs = torch.log_softmax(read(source).model(torch.tensor([ids[:-1]])).logits[0], dim=1)
    return logprobs.topk(count, dim=1)


async def ask_for(sampler: DeploymentSampler, count: int, **options: Any) -> list[Any]:
    try:
        return list(await sampler.sample_with_prompt_tokens(PROMPT, n=count, logprobs=True, **options))
    finally:
        assert sampler._async_client is not None
        await sampler._async_client.aclose()


@pytest.mark.parametrize("count", [1, 5])
async def test_the_top_k_come_with_each_token_that_is_sampled(
    sampler_of: "SamplerOf", other_tiny_model: str, count: int
) -> None:
    sampled = await ask(sampler_of(), PROMPT, max_tokens=6, seed=3, top_logprobs=count)
    expected = best_of(other_tiny_model, sampled.full_tokens, count)
    places = slice(len(PROMPT) - 1, None)
    assert sampled.inference_topk_token_ids == expected.indices[places].tolist()
    for ours, theirs in zip(sampled.inference_topk_logprobs, expected.values[places].tolist(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    plain = await ask(sampler_of(), PROMPT, max_tokens=6, seed=3)
    assert plain.full_tokens == sampled.full_tokens
    assert plain.inference_topk_token_ids is None


async def test_a_stop_that_is_a_special_token_ends_a_completion_by_its_id(
    sampler_of: "SamplerOf", other_tiny_model: str
) -> None:
    """The SDK gives ids by their text, special tokens too; the token is the completion's last."""
    for seed in range(20):
        free = (await ask(sampler_of(), PROMPT, max_tokens=40, seed=seed)).full_tokens[len(PROMPT) :]
        if 0 in free[:-1]:
            break
    at = free.index(0)
    cut = await ask(sampler_of(), PROMPT, max_tokens=40, seed=seed, stop=["<|endoftext|>", "nowhere"])
    assert cut.full_tokens[len(PROMPT) :] == free[: at + 1]
    assert cut.finish_reason == "stop"
    assert len(cut.inference_logprobs) == at + 1


async def test_an_echo_has_the_top_k_at_every_position_of_the_prompt(
    sampler_of: "SamplerOf", other_tiny_model: str
) -> None:
    score = await ask(sampler_of(), PROMPT, **SCORING, echo=True, top_logprobs=3)
    expected = best_of(other_tiny_model, score.full_tokens, 3)
    assert score.inference_topk_token_ids == expected.indices.tolist()
    assert len(score.inference_logprobs) == len(score.inference_topk_logprobs) == len(PROMPT)
    assert score.full_tokens[-1] == score.inference_topk_token_ids[-1][0]


@pytest.mark.parametrize("count", [0, 1, 3, len(PROMPT) - 1, len(PROMPT), 99])
async def test_the_end_of_a_prompt_is_scored_as_in_the_whole_echo(sampler_of: "SamplerOf", count: int) -> None:
    whole = await ask(sampler_of(), PROMPT, **SCORING, echo=True, top_logprobs=2)
    part = await ask(sampler_of(), PROMPT, **SCORING, echo_last=count, top_logprobs=2)
    rows = min(count, len(PROMPT) - 1)  # the first token of a prompt has no logprob
    assert part.echoed_prompt_logprob_count == rows
    assert part.full_tokens == whole.full_tokens
    assert part.inference_logprobs == whole.inference_logprobs[-rows - 1 :]
    assert part.inference_topk_token_ids == whole.inference_topk_token_ids[-rows - 1 :]


async def test_a_wrong_id_in_the_end_of_a_prompt_is_seen(service: LoopbackService, sampler_of: "SamplerOf") -> None:
    service.faults.add(faults.WrongIds(-1), where="POST .*/completions$")
    with pytest.raises(RuntimeError, match="Echo response format mismatch"):
        await ask(sampler_of(), PROMPT, **SCORING, echo_last=2)


async def test_n_completions_are_n_requests_and_only_a_seed_makes_them_alike(
    service: LoopbackService, sampler_of: "SamplerOf"
) -> None:
    free = await ask_for(sampler_of(), 3, max_tokens=12)
    assert [request.body["n"] for request in service.requests] == [1, 1, 1]  # type: ignore[index,call-overload]
    assert len({tuple(each.full_tokens) for each in free}) == 3
    seeded = await ask_for(sampler_of(), 3, max_tokens=12, seed=1)
    assert len({tuple(each.full_tokens) for each in seeded}) == 1


async def test_what_is_sampled_without_a_seed_does_not_depend_on_the_order_of_arrival(
    service: LoopbackService, other_tiny_model: str, sampler_of: "SamplerOf"
) -> None:
    other = [*PROMPT, 60]
    first = [(await ask(sampler_of(), prompt, max_tokens=12)).full_tokens for prompt in (PROMPT, other, PROMPT)]
    with LoopbackService({SERVED: other_tiny_model}) as again:
        sampler = DeploymentSampler(inference_url=again.base_url, model=SERVED, api_key="test-key")
        second = [(await ask(sampler, prompt, max_tokens=12)).full_tokens for prompt in (other, PROMPT, PROMPT)]
    assert second == [first[1], first[0], first[2]]


def test_one_request_for_several_completions_has_a_choice_for_each(service: LoopbackService) -> None:
    """The SDK's own parser would run them into one, so it never asks this way."""
    body = {"model": SERVED, "prompt": PROMPT, "max_tokens": 6, "logprobs": True, "seed": 1, "n": 3, "echo_last": 2}
    answer = httpx.post(f"{service.base_url}/inference/v1/completions", json=body, headers={"x-api-key": "k"}).json()
    ids = [choice["raw_output"]["completion_token_ids"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({tuple(each) for each in ids}) == 3
    for each, choice in zip(ids, answer["choices"], strict=True):
        assert each[:2] == PROMPT[-2:]
        assert [row["token_id"] for row in choice["logprobs"]["content"]] == each
    assert answer["usage"]["completion_tokens"] == sum(len(each) - 2 for each in ids)


async def test_the_sdk_runs_several_completions_of_one_stream_into_one(sampler_of: "SamplerOf") -> None:
    """Why a completion is only taken for one if it has a logprob a token."""
    sampler = sampler_of()
    result = await sampler.sample_with_prompt_tokens_result(PROMPT, max_tokens=6, seed=1, logprobs=True, n=2)
    assert sampler._async_client is not None
    await sampler._async_client.aclose()
    (merged,) = result.completions
    assert merged.inference_logprobs is not None
    assert len(merged.inference_logprobs) > merged.completion_len


async def test_the_sdks_sampling_client_reads_several_completions_and_the_prompts_logprobs(
    sampler_of: "SamplerOf",
) -> None:
    client = FiretitanSamplingClient(sampler_of())
    prompt, params = types.ModelInput.from_ints(PROMPT), types.SamplingParams(max_tokens=6, temperature=1.0)
    response = await client.sample_async(prompt, 2, params, include_prompt_logprobs=True)
    assert len({tuple(sequence.tokens) for sequence in response.sequences}) == 2
    assert response.prompt_logprobs is not None
    assert response.prompt_logprobs[0] is None
    assert len(response.prompt_logprobs) == len(PROMPT)


async def test_what_the_real_service_does_not_take_is_refused(sampler_of: "SamplerOf") -> None:
    for options in ({"top_logprobs": 6}, {"top_logprobs": 1, "logprobs": False}, {"echo_last": -1}, {"n": 0}):
        sampler = sampler_of()
        with pytest.raises(httpx.HTTPStatusError, match="400"):
            await sampler.sample_with_prompt_tokens_result(PROMPT, **{"max_tokens": 2, "logprobs": True, **options})
        assert sampler._async_client is not None
        await sampler._async_client.aclose()
