from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_models

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse


def items(shared: int) -> list[PromptAndResponse]:
    """Prompts that have their first tokens in common, of different lengths; one is nothing else."""
    rng = np.random.default_rng(0)
    prefix = rng.integers(5, 250, shared)
    return [
        PromptAndResponse(token_ids([*prefix, *rng.integers(5, 250, own)]), token_ids(rng.integers(5, 250, new)))
        for own, new in ((1, 3), (17, 5), (4, 1), (1, 8))
    ]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("shared", [0, 40])
@torch.no_grad()
def test_scores_are_those_of_the_models_own_forward_whatever_prompts_share(
    tmp_path: Path, load: Callable[..., CausalLM], forward: str, family: str, shared: int
) -> None:
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    if forward == "fast" and family not in tiny_models.FAST:
        return
    backbone = verified_backbone(causal_lm) if forward == "fast" else None
    expected = torch.cat([plain_logprobs(causal_lm.model, item) for item in items(shared)])
    logprobs, ids = score_logprobs(causal_lm, items(shared), backbone)
    torch.testing.assert_close(logprobs, expected, atol=5e-5, rtol=1e-5)
    assert ids.tolist() == [index for item in items(shared) for index in item.response_ids.tolist()]


def test_what_prompts_share_is_computed_once(causal_lm: CausalLM) -> None:
    computed: list[torch.Size] = []
    causal_lm.backbone.embed_tokens.register_forward_hook(lambda module, args, out: computed.append(args[0].shape))
    score_logprobs(causal_lm, items(40))
    assert computed == [torch.Size([1, 40]), torch.Size([4, 22])]


def repeated(prefix: int, repeats: int) -> list[PromptAndResponse]:
    """Three prompts of different lengths, each with several responses of different lengths, mixed."""
    rng = np.random.default_rng(1)
    first = rng.integers(5, 250, prefix)
    prompts = [token_ids([*first, *rng.integers(5, 250, own)]) for own in (1, 30, 12)]
    return [PromptAndResponse(prompts[i % 3], token_ids(rng.integers(5, 250, 2 + i))) for i in range(3 * repeats)]


@pytest.mark.parametrize("family", tiny_models.FAST)
@pytest.mark.parametrize("prefix", [0, 5, 40])
@torch.no_grad()
def test_several_responses_to_a_prompt_are_scored_as_each_alone(
    tmp_path: Path, load: Callable[..., CausalLM], family: str, prefix: int
) -> None:
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    backbone = verified_backbone(causal_lm)
    expected = torch.cat([plain_logprobs(causal_lm.model, item) for item in repeated(prefix, 3)])
    logprobs, ids = score_logprobs(causal_lm, repeated(prefix, 3), backbone)
    torch.testing.assert_close(logprobs, expected, atol=5e-5, rtol=1e-5)
    assert ids.tolist() == [index for item in repeated(prefix, 3) for index in item.response_ids.tolist()]


def computed_by(backbone: FastBackbone, items: list[PromptAndResponse], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass through the backbone computes, padding included."""
    computed: list[int] = []
    forward = FastBackbone.__call__
    monkeypatch.setattr(
        FastBackbone, "__call__", lambda self, ids, *rest: computed.append(len(ids)) or forward(self, ids, *rest)
    )
    score_logprobs(backbone.causal_lm, items, backbone)
    return computed


def test_a_prompt_of_several_responses_is_computed_once(causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last token of a prompt is computed with each response, whose own last token is not."""
    assert computed_by(verified_backbone(causal_lm), repeated(40, 2), monkeypatch) == [40, 3 * 29, 6 * 7]


def test_a_single_response_is_computed_with_its_prompt(causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert computed_by(verified_backbone(causal_lm), repeated(0, 1), monkeypatch) == [3 * 32]
