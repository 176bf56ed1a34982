"""A LoRA that is sampled beside its weights is computed as training computes it."""

from pathlib import Path

import pytest
import torch
from helpers.model_families import random_causal_lm, random_model
from peft import LoraConfig, get_peft_model

from builtin.local.sampling.moving_policies import logprobs, move, student
from distillkit.arrays import token_ids
from distillkit_builtin.local.fast import projection
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.lora.lora import use_adapted_linear
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_lora_beside_its_weights_is_computed_as_training_computes_it(dtype: torch.dtype) -> None:
    """To the last bit, by transformers' forward; by the fast path as close as its own rounding. No weight is copied."""
    model = random_model("llama").to(dtype).requires_grad_(False)
    causal_lm = random_causal_lm("llama").of_copy(model)
    causal_lm.dtype = dtype
    policy = Policy.lora(causal_lm, rank=4, alpha=12, dropout=0.0, seed=0)
    base = {parameter.data_ptr() for parameter in model.parameters() if not parameter.requires_grad}
    sampling = SamplingCopy(causal_lm, merges=False)
    held = [p for p in sampling.causal_lm.model.parameters() if p.data_ptr() not in base]
    assert {p.dtype for p in held} == {dtype}
    assert sum(p.numel() for p in held) == sum(p.numel() for p in policy.trained.values())
    backbone = verified_backbone(sampling.causal_lm)
    again = verified_backbone(sampling.causal_lm)  # reads what the first one reads
    teacher = verified_backbone(causal_lm)
    items = [PromptAndResponse(token_ids([5, 6, 7]), token_ids([8, 9, 11]))]
    with causal_lm.without_adapter():
        frozen = logprobs(causal_lm)
    for seed in (0, 1):
        move(policy, seed)
        sampling.refresh()
        torch.testing.assert_close(logprobs(sampling.causal_lm), logprobs(causal_lm), atol=0, rtol=0)
        close = 1e-4 if dtype == torch.float32 else 0.1
        for each in (backbone, again):
            scored, _ = score_logprobs(sampling.causal_lm, items, each)
            torch.testing.assert_close(scored, policy.logprobs(items), atol=close, rtol=close)
    learned = policy.logprobs(items)
    with causal_lm.without_adapter():
        torch.testing.assert_close(logprobs(causal_lm), frozen, atol=0, rtol=0)
        scored, _ = score_logprobs(causal_lm, items, teacher)
        torch.testing.assert_close(scored, policy.logprobs(items), atol=close, rtol=close)
        assert not torch.allclose(scored, learned, atol=0.2)


@torch.no_grad()
def test_a_lora_of_another_scale_beside_its_weights_is_computed_as_training_computes_it() -> None:
    """As rank-stabilized LoRA scales (arXiv:2312.03732), by the root of the rank, and one with ranks of its own."""
    causal_lm = random_causal_lm("llama")
    config = LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, rank_pattern={"v_proj": 2}, alpha_pattern={"k_proj": 3},
        target_modules=["q_proj", "v_proj", "k_proj", "down_proj"], task_type="CAUSAL_LM",
    )  # fmt: skip
    causal_lm.adapter = get_peft_model(causal_lm.model, config)
    use_adapted_linear(causal_lm.model)
    policy = Policy(causal_lm, {n: p for n, p in causal_lm.adapter.named_parameters() if p.requires_grad})
    sampling = SamplingCopy(causal_lm, merges=False)
    assert len({*sampling._scales.values()}) == 3
    backbone = verified_backbone(sampling.causal_lm)
    move(policy, 0)
    sampling.refresh()
    torch.testing.assert_close(logprobs(sampling.causal_lm), logprobs(causal_lm), atol=0, rtol=0)
    items = [PromptAndResponse(token_ids([5, 6, 7]), token_ids([8, 9, 11]))]
    scored = score_logprobs(sampling.causal_lm, items, backbone)[0]
    torch.testing.assert_close(scored, policy.logprobs(items), atol=1e-4, rtol=1e-4)


def test_a_lora_beside_its_weights_is_proved_before_it_has_learned_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    causal_lm = random_causal_lm("llama")
    Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    sampling = SamplingCopy(causal_lm, merges=False)
    monkeypatch.setattr(projection, "_lora", lambda layer: None)  # a fast path that forgets it
    with pytest.raises(UnsupportedModelError, match=r"differ from transformers' by"):
        verified_backbone(sampling.causal_lm)


@pytest.mark.parametrize("kind", ["embeddings", "weight decomposition", "a layer trained whole"])
def test_adapters_that_are_not_merged_keep_the_copy_off_the_fast_path(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"its adapter .* cannot be added to its layers' weights"):
        verified_backbone(SamplingCopy(student(kind, tmp_path).causal_lm).causal_lm)
