"""Completions are of exactly the version that they name: what samples shares nothing with what trains."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_causal_lm, random_model, write_quantized
from helpers.tiny_models import write_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

import distillkit
from builtin.local.conftest import plain_logprobs
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.fast import projection
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.live_student import LiveLocalStudent
from distillkit_builtin.local.lora.lora import use_adapted_linear
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy, require_isolated
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore")
QUANTIZED: Mapping[str, Mapping[str, Any]] = {
    "llama 4 bit": {"load_in_4bit": True},
    "llama 8 bit": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
    "glm4_moe 4 bit": {"kind": "glm4_moe", "load_in_4bit": True},
}
ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "a layer trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "weight decomposition": {"target_modules": "all-linear", "use_dora": True},
    "rank stabilized": {"target_modules": "all-linear", "use_rslora": True},
    "biases of its own": {"target_modules": "all-linear", "lora_bias": True},
    "the head that shares the embeddings": {"target_modules": ["lm_head", "q_proj"]},
    "a block that two layers share": {"target_modules": "all-linear"},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6, 7]},
}
TIED = ("llama, all weights", "the head that shares the embeddings")


def student(kind: str, folder: Path) -> Policy:
    """A policy whose adapter does something, by the names of the tests' parameters."""
    device = Device(torch.device("cpu"))
    if kind in QUANTIZED:
        causal_lm = CausalLM.load(write_quantized(folder, **QUANTIZED[kind]), device, torch.float32, torch.float32)
    else:
        family = "llama" if kind in ADAPTERS else kind.removesuffix(", all weights")
        causal_lm = random_causal_lm(family, tie_word_embeddings=kind in TIED)
    if kind == "a block that two layers share":  # as Zamba's: modules of their own with weights in common
        first, second = (layer.self_attn for layer in causal_lm.model.model.layers)
        for name in ("q_proj", "v_proj"):
            setattr(getattr(second, name), "weight", getattr(first, name).weight)  # noqa: B010
    if kind.endswith("all weights"):
        return Policy.full(causal_lm)
    if kind not in ADAPTERS:
        policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    else:
        causal_lm.adapter = get_peft_model(causal_lm.model, LoraConfig(r=4, task_type="CAUSAL_LM", **ADAPTERS[kind]))
        use_adapted_linear(causal_lm.model)
        trained = {name: p for name, p in causal_lm.adapter.named_parameters() if p.requires_grad}
        policy = Policy(causal_lm, trained)
    move(policy, 0)
    return policy


@torch.no_grad()
def move(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in policy.trained.values():
        parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))


@torch.no_grad()
def logprobs(causal_lm: CausalLM) -> torch.Tensor:
    numbers = np.random.default_rng(0)
    ids = [token_ids(numbers.integers(5, 250, n)) for n in (5, 9, 7, 4)]
    return causal_lm.response_logprobs([PromptAndResponse(ids[0], ids[1]), PromptAndResponse(ids[2], ids[3])])


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


def saved(base: str, folder: Path) -> torch.nn.Module:
    """The policy that `write_weights` wrote, as others load it."""
    if (folder / "model").is_dir():
        whole: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        return whole
    frozen = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(frozen, folder / "adapter")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Rollout]:
    """Rollouts of the runs to come; the weights of each version are written into a folder of its number."""
    rollouts: list[Rollout] = []
    sample, apply = LiveLocalStudent.sample, Trainer.apply_gradient

    async def record(self: LiveLocalStudent, requests: Any) -> Any:
        async for rollout in sample(self, requests):
            rollouts.append(rollout)
            yield rollout

    def write(self: Trainer) -> dict[str, float]:
        write_weights(self.policy, tmp_path / "versions" / str(self.scheduler.last_epoch))
        metrics = apply(self)
        write_weights(self.policy, tmp_path / "versions" / str(self.scheduler.last_epoch))
        return metrics

    monkeypatch.setattr(LiveLocalStudent, "sample", record)
    monkeypatch.setattr(Trainer, "apply_gradient", write)
    return rollouts


@pytest.mark.parametrize("train", [{"weight_sync_interval": 4}, {"max_steps_off_policy": 2}], ids=str)
@pytest.mark.parametrize(
    "kind", ["llama", "llama, all weights", "qwen3_moe", "llama 4 bit", "llama, beside", "qwen3_moe, beside"]
)
def test_each_completion_is_of_the_version_that_it_names(
    kind: str,
    train: Mapping[str, int],
    watched: list[Rollout],
    local_config: Callable[..., RunConfig],
    tmp_path: Path,
) -> None:
    if kind in QUANTIZED:
        base = write_quantized(tmp_path, **QUANTIZED[kind])
    else:
        base = str(tmp_path / "base")
        random_model(kind.partition(",")[0]).save_pretrained(base)
        write_tokenizer(Path(base))
    whole = kind.endswith("all weights")
    options: dict[str, Any] = {"model": base, "lora_rank": 0 if whole else 4, "learning_rate": 0.01 if whole else 0.05}
    if kind.endswith("beside"):
        options["sampling_weights"] = "adapter"
    over = {"student": options, "train": {"prompt_groups_per_step": 1, "max_steps": 6, **train}}
    distillkit.run(local_config(**over, sampling={"completions_per_prompt": 2, "max_completion_tokens": 5}))
    versions = {rollout.policy_version for rollout in watched}
    assert len(watched) == 12
    assert versions == ({0, 4} if "weight_sync_interval" in train else {0, 1, 2, 3})
    with warnings.catch_warnings(), torch.no_grad():
        models = {version: saved(base, tmp_path / "versions" / str(version)).eval() for version in versions}
        for rollout in watched:
            item = PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids)
            expected = plain_logprobs(models[rollout.policy_version], item)
            # On some CPUs bitsandbytes computes in bfloat16.
            close = 0.03 if kind in QUANTIZED else 1e-4
            torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=close, rtol=close)
        latest = models[max(versions)]
        moved = [PromptAndResponse(r.request.prompt_ids, r.token_ids) for r in watched if r.policy_version == 0]
        assert any(not torch.allclose(plain_logprobs(latest, i), plain_logprobs(models[0], i), atol=0.1) for i in moved)
