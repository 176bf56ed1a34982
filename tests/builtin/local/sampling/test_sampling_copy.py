"""What samples shares nothing with what trains, and follows it at a refresh."""

from pathlib import Path

import pytest
import torch
from helpers.model_families import random_causal_lm, random_model
from peft import LoraConfig, get_peft_model

from builtin.local.sampling.moving_policies import ADAPTERS, QUANTIZED, logprobs, move, student
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.causal_lm import PromptAndResponse
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy, require_isolated
from distillkit_builtin.local.training.policy import Policy

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("linear", ["two layers share their weights", "one shares with what has no adapter"])
def test_an_adapter_on_a_weight_of_several_layers_is_added_for_its_own_alone(linear: str, tmp_path: Path) -> None:
    causal_lm = random_causal_lm("llama")
    first, second = (layer.self_attn for layer in causal_lm.model.model.layers[:2])
    second.q_proj.weight = first.q_proj.weight
    targets = ["q_proj", "k_proj"] if linear.startswith("two") else ["0.self_attn.q_proj", "k_proj"]
    causal_lm.adapter = get_peft_model(causal_lm.model, LoraConfig(r=4, task_type="CAUSAL_LM", target_modules=targets))
    policy = Policy(causal_lm, {n: p for n, p in causal_lm.adapter.named_parameters() if p.requires_grad})
    move(policy, 0)
    sampling = SamplingCopy(causal_lm)
    for seed in (1, 2):
        sampling.refresh()
        torch.testing.assert_close(logprobs(sampling.causal_lm), logprobs(causal_lm), atol=1e-4, rtol=1e-4)
        move(policy, seed)
    assert not any("lora" in name for name, _ in sampling.causal_lm.model.named_parameters())


LORAS = ("llama", "gpt2", "qwen3_moe", "gpt_oss", "mixtral", *QUANTIZED)


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("kind", [*LORAS, *ADAPTERS, "llama, all weights", "qwen3_moe, all weights"])
def test_the_copy_follows_at_a_refresh_and_not_before(kind: str, merges: bool, tmp_path: Path) -> None:
    policy = student(kind, tmp_path)
    sampling = SamplingCopy(policy.causal_lm, merges=merges)
    sampling.refresh()
    before = logprobs(sampling.causal_lm)
    torch.testing.assert_close(before, logprobs(policy.causal_lm), atol=1e-4, rtol=1e-4)
    with policy.training():
        policy.logprobs([PromptAndResponse(token_ids([5, 6]), token_ids([7, 8]))]).sum().backward()
    move(policy, 1)
    torch.testing.assert_close(logprobs(sampling.causal_lm), before, atol=0, rtol=0)
    assert not torch.allclose(logprobs(policy.causal_lm), before, atol=1e-2)
    sampling.refresh()
    torch.testing.assert_close(logprobs(sampling.causal_lm), logprobs(policy.causal_lm), atol=1e-4, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in sampling.causal_lm.model.parameters())


@pytest.mark.parametrize("merges", [True, False])
@pytest.mark.parametrize("kind", ["qwen3_moe", *QUANTIZED, *ADAPTERS])
def test_a_teacher_on_the_same_base_stays_as_it_was(kind: str, merges: bool, tmp_path: Path) -> None:
    policy = student(kind, tmp_path)
    with policy.causal_lm.without_adapter():
        before = logprobs(policy.causal_lm)
    sampling = SamplingCopy(policy.causal_lm, merges=merges)
    move(policy, 1)
    sampling.refresh()
    logprobs(sampling.causal_lm)
    with policy.causal_lm.without_adapter():
        torch.testing.assert_close(logprobs(policy.causal_lm), before, atol=0, rtol=0)


@pytest.mark.parametrize("kind", LORAS)
def test_the_copy_holds_the_frozen_base_once(kind: str, tmp_path: Path) -> None:
    policy = student(kind, tmp_path)
    copied = dict(SamplingCopy(policy.causal_lm).causal_lm.model.named_parameters())
    embedding = policy.causal_lm.model.get_input_embeddings().weight
    assert any(parameter is embedding for parameter in copied.values())
    if kind in QUANTIZED:
        base = {id(p) for p in policy.causal_lm.model.parameters() if not p.requires_grad}
        assert all(id(p) in base for p in copied.values() if not p.is_floating_point())


@pytest.mark.parametrize("merges", [True, False])
@torch.no_grad()
def test_a_teacher_that_was_opened_before_the_student_and_its_sampler_take_turns(merges: bool) -> None:
    """Its fast path reads the same weights, laid side by side before there was a LoRA on them."""
    causal_lm = random_causal_lm("llama")
    items = [PromptAndResponse(token_ids([5, 6, 7]), token_ids([8, 9, 11]))]
    teacher = verified_backbone(causal_lm)
    frozen = score_logprobs(causal_lm, items, teacher)[0]
    policy = Policy.lora(causal_lm, rank=4, alpha=12, dropout=0.0, seed=0)
    sampling = SamplingCopy(causal_lm, merges=merges)
    sampler = verified_backbone(sampling.causal_lm)
    shared = {layer.qkv.weight.data_ptr() for layer in teacher.layers}
    assert shared.isdisjoint(layer.qkv.weight.data_ptr() for layer in sampler.layers) is merges
    for seed in (0, 1):
        move(policy, seed)
        sampling.refresh()
        for _ in range(2):
            sampled = score_logprobs(sampling.causal_lm, items, sampler)[0]
            torch.testing.assert_close(sampled, policy.logprobs(items), atol=1e-4, rtol=1e-4)
            with causal_lm.without_adapter():
                torch.testing.assert_close(score_logprobs(causal_lm, items, teacher)[0], frozen, atol=0, rtol=0)
        assert not torch.allclose(sampled, frozen, atol=1e-2)


def test_a_copy_that_shares_what_is_trained_is_refused(tmp_path: Path) -> None:
    policy = student("llama", tmp_path)
    model = policy.causal_lm.model
    with pytest.raises(InputError, match=r"layer 'model.layers.0.self_attn.q_proj' .* be trained and sampled from"):
        require_isolated(model, model)
    other = random_model("llama")
    require_isolated(other, model)
    trained = next(iter(policy.trained.values()))
    other.model.norm.kept = [trained.detach().view(-1)[:2]]  # a view, in a plain attribute
    with pytest.raises(InputError, match=r"layer 'model\.norm'"):
        require_isolated(other, model)
