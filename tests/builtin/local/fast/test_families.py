"""Each family that the fast path computes, beside transformers' own forward: sampled, scored, updated in place."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.fast_families import FAST_FAMILIES, WRAPPERS, fast_family

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.local.fast import self_check
from distillkit_builtin.local.fast.attention import CausalAttention
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.feed_forward import Experts
from distillkit_builtin.local.fast.layer_weights import LayerWeights
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import FAMILIES, UnsupportedModelError
from distillkit_builtin.local.inference.generator import Generator
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.policy import Policy

NAMES = sorted({**FAST_FAMILIES, **WRAPPERS})
IDS = torch.from_numpy(np.random.default_rng(3).integers(3, 240, 30))


def hidden_states(backbone: FastBackbone) -> torch.Tensor:
    return backbone(IDS, backbone.rotary(len(IDS)), CausalAttention(len(IDS)))


def requests() -> list[SampleRequest]:
    """Some shorter and some longer than any window, with two completions of each prompt."""
    numbers, params = np.random.default_rng(0), SamplingParams(max_tokens=16)
    prompts = [token_ids(numbers.integers(3, 240, length)) for length in (3, 30, 11, 19)]
    return [SampleRequest(SampleKey("1-x", 0, i), prompts[i // 2], 70 + i, params) for i in range(8)]


def test_every_family_is_tried() -> None:
    assert set(FAST_FAMILIES) == set(FAMILIES)
    assert all(config.model_type == name for name, config in FAST_FAMILIES.items())


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_samples_are_the_plain_paths_token_by_token(
    name: str, make_generator: Callable[[CausalLM, tuple[int, ...], str], Generator]
) -> None:
    """More requests than slots, and ends that come at different times: rows leave, and others take their slots."""
    causal_lm = fast_family(name)
    sampled: dict[str, list[Rollout]] = {"plain": [], "fast": [], "behind": []}
    for forward, rollouts in sampled.items():
        make_generator(causal_lm, tuple(range(2, 20)), forward).generate(requests(), 3, 0, rollouts.append)
        rollouts.sort(key=lambda rollout: rollout.key)
    lengths = {len(rollout.token_ids) for rollout in sampled["plain"]}
    assert len(lengths) > 1
    for plain, fast, behind in zip(*sampled.values(), strict=True):
        assert plain.token_ids.tolist() == fast.token_ids.tolist() == behind.token_ids.tolist()
        alone = plain_logprobs(causal_lm.model, PromptAndResponse(fast.request.prompt_ids, fast.token_ids))
        np.testing.assert_allclose(fast.logprobs, alone.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shared", [0, 25])
@torch.no_grad()
def test_scores_are_those_of_each_sequence_alone(name: str, shared: int) -> None:
    """Three prompts of different lengths with three responses each; windows end inside what prompts share."""
    causal_lm, numbers = fast_family(name), np.random.default_rng(1)
    first = numbers.integers(5, 240, shared)
    prompts = [token_ids([*first, *numbers.integers(5, 240, own)]) for own in (1, 30, 12)]
    items = [PromptAndResponse(prompts[i % 3], token_ids(numbers.integers(5, 240, 2 + i))) for i in range(9)]
    logprobs, _ = score_logprobs(causal_lm, items, verified_backbone(causal_lm))
    alone = torch.cat([plain_logprobs(causal_lm.model, item) for item in items])
    torch.testing.assert_close(logprobs, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_weights_that_change_in_place_change_the_backbone(name: str) -> None:
    causal_lm = fast_family(name)
    backbone = verified_backbone(causal_lm)
    before = hidden_states(backbone)
    for parameter in causal_lm.model.parameters():
        parameter.mul_(0.9)
    after = hidden_states(backbone)
    torch.testing.assert_close(after, causal_lm.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize("name", ["gemma3_text", "granite", "olmo2"])
@torch.no_grad()
def test_a_trained_lora_reaches_the_sampling_copys_backbone(name: str) -> None:
    causal_lm = fast_family(name)
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    sampling_copy = SamplingCopy(causal_lm)
    sampled = verified_backbone(sampling_copy.causal_lm)
    for parameter in policy.trained.values():
        parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    sampling_copy.refresh()
    torch.testing.assert_close(hidden_states(sampled), causal_lm.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_families_are_proven_in_bfloat16_too(name: str) -> None:
    verified_backbone(fast_family(name, torch.bfloat16))


def wrong_layers(backbone: FastBackbone, **change: object) -> None:
    backbone.layers = [replace(layer, **change) for layer in backbone.layers]  # type: ignore[arg-type]


def swapped_norms(backbone: FastBackbone) -> None:
    backbone.layers = [replace(x, query_norm=x.key_norm, key_norm=x.query_norm) for x in backbone.layers]


def change_experts(backbone: FastBackbone, **change: object) -> None:
    for index, layer in enumerate(backbone.layers):
        if isinstance(layer.feed_forward, Experts):
            changed: LayerWeights = replace(layer, feed_forward=replace(layer.feed_forward, **change))  # type: ignore[arg-type]
            backbone.layers[index] = changed


@pytest.mark.parametrize(
    ("name", "break_it"),
    [
        ("granite", lambda backbone: wrong_layers(backbone, residual_scale=None)),
        ("granite", lambda backbone: wrong_layers(backbone, attention_scale=8**-0.5)),
        ("granite", lambda backbone: setattr(backbone, "_embedding_scale", None)),
        ("olmo2", lambda backbone: wrong_layers(backbone, norm_behind=None)),
        ("gemma3_text", lambda backbone: setattr(backbone, "_about_one", False)),
        ("gemma3_text", lambda backbone: setattr(backbone, "windows", (None,) * 3)),
        ("gemma3_text", lambda backbone: setattr(backbone, "windows", (12,) * 3)),
        ("gemma3_text", lambda backbone: setattr(backbone, "_kinds", [0] * 3)),
        ("gemma3_text", swapped_norms),
        ("qwen3_moe", lambda backbone: change_experts(backbone, normalized=False)),
        ("qwen3_moe", lambda backbone: change_experts(backbone, top_k=3)),
        ("qwen2_moe", lambda backbone: change_experts(backbone, shared=None)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_part_that_is_computed_in_another_way_is_found_out(
    name: str, break_it: Callable[[FastBackbone], None], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(causal_lm: CausalLM) -> FastBackbone:
        backbone = FastBackbone(causal_lm)
        break_it(backbone)
        return backbone

    monkeypatch.setattr(self_check, "FastBackbone", broken)
    with pytest.raises(UnsupportedModelError, match=r"differ from transformers' by .* of their norm"):
        verified_backbone(fast_family(name, dtype))
