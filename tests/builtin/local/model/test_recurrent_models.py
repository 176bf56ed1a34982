"""Recurrent and hybrid models are batched as was proved of them, and every number is that of the sequence alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import read_jsonl
from helpers.model_families import random_causal_lm, random_model
from helpers.own_forward import reference
from helpers.recurrent_families import RECURRENT
from helpers.tiny_models import write_tokenizer

import distillkit
from builtin.local.model.recurrent_items import family, items, references, sampled
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.inference import kernel_packages
from distillkit_builtin.local.inference.kernel_packages import missing_kernel_packages
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.batching import TOGETHER, Batching
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.model_cache import select_rows
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy

NOT_TOGETHER = {
    "mamba": Batching(left_padding=False, right_padding=True, shared_prefix=False),
    "falcon_mamba": Batching(left_padding=False, right_padding=True, shared_prefix=False),
    "minimax": Batching(left_padding=False, right_padding=True, shared_prefix=False),
    "deepseek_v4": Batching(left_padding=False, right_padding=True, shared_prefix=True),
    "jamba": Batching(left_padding=True, right_padding=True, shared_prefix=False),
}
"""What transformers computes otherwise in a batch; a later version may do more."""
SEVERAL_WAYS = ("qwen3_next", "lfm3", "mamba2", "bamba", "zamba2", *NOT_TOGETHER)


@pytest.mark.parametrize("name", RECURRENT)
def test_how_a_family_may_be_batched_is_found(name: str) -> None:
    assert family(name).batching == NOT_TOGETHER.get(name, TOGETHER)


@pytest.mark.parametrize("name", SEVERAL_WAYS)
def test_sampled_logprobs_are_the_references_while_rows_leave(name: str, tmp_path: Path) -> None:
    causal_lm = family(name)
    rollouts = sampled(causal_lm, tmp_path)
    assert len(rollouts) == 4
    assert len({len(rollout.token_ids) for rollout in rollouts}) > 1
    for rollout in rollouts:
        expected = reference(causal_lm, PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids))
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", SEVERAL_WAYS)
def test_scored_and_trained_logprobs_are_the_references(name: str) -> None:
    causal_lm = family(name)
    expected = references(causal_lm)
    found, _ = score_logprobs(causal_lm, items())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    policy = Policy.full(causal_lm)
    with policy.training():
        torch.testing.assert_close(policy.logprobs(items()).detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["qwen3_next", "falcon_h1", "jamba", "deepseek_v4"])
def test_recomputed_activations_change_no_gradient(name: str) -> None:
    gradients = []
    for recomputes in (False, True):
        policy = Policy.full(family(name))
        if recomputes:
            checkpoint_activations(policy.causal_lm.model)
        with policy.training():
            policy.logprobs(items()).sum().backward()
        gradients.append({n: p.grad for n, p in policy.trained.items() if p.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient)


@pytest.mark.parametrize("name", ["lfm3", "falcon_h1", "minimax"])
def test_rows_of_a_cache_are_taken_in_any_order_and_number(name: str) -> None:
    causal_lm = family(name)
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 250, (3, 20)))
    index = torch.tensor([2, 0, 2, 1])
    taken, afterwards = causal_lm.new_cache(), causal_lm.new_cache()
    causal_lm.hidden_states(ids, taken)
    select_rows(taken, index)
    causal_lm.hidden_states(ids[index], afterwards)
    token, places = torch.full((4, 1), 7), torch.full((4, 1), 20)
    found = causal_lm.hidden_states(token, taken, position_ids=places)
    torch.testing.assert_close(found, causal_lm.hidden_states(token, afterwards, position_ids=places))


@pytest.mark.parametrize("name", ["nemotron_h", "zamba2", "bamba"])
def test_limits_of_time_steps_hold_token_by_token_with_an_adapter_on_the_projection(name: str, tmp_path: Path) -> None:
    over = {"time_step_limit": (0.05, 0.2)} if name == "bamba" else {"time_step_min": 0.05}
    causal_lm = random_causal_lm(name, **{**RECURRENT[name], **over})
    with torch.no_grad():
        for key, parameter in causal_lm.model.named_parameters():
            if key.endswith("dt_bias"):
                parameter.copy_(torch.linspace(-8.0, 0.0, len(parameter)))
    for rollout in sampled(proved(causal_lm), tmp_path):
        expected = reference(causal_lm, PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids))
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        ids = torch.arange(5, 14)[None]
        cache, whole = causal_lm.new_cache(), causal_lm.hidden_states(ids)
        causal_lm.hidden_states(ids[:, :-1], cache)
        last = causal_lm.hidden_states(ids[:, -1:], cache, position_ids=torch.tensor([[8]]))
    torch.testing.assert_close(last, whole[:, -1:], atol=1e-4, rtol=1e-4)


def test_packages_with_kernels_are_those_that_the_layers_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_packages, "find_spec", lambda name: None)
    assert missing_kernel_packages(family("qwen3_5_text").model) == ["causal-conv1d", "flash-linear-attention"]
    assert missing_kernel_packages(family("mamba2").model) == ["causal-conv1d", "mamba-ssm"]
    assert missing_kernel_packages(random_causal_lm("llama").model) == []


def written(folder: Path, name: str, seed: int) -> str:
    random_model(name, seed=seed, **RECURRENT[name]).save_pretrained(folder)
    write_tokenizer(folder)
    return str(folder)


def test_a_whole_run_of_a_recurrent_model_is_exact_and_says_in_which_way_it_samples(
    local_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    student, teacher = (written(tmp_path / str(seed), "jamba", seed) for seed in (0, 1))
    rows = [{"messages": [{"role": "user", "content": "what is " + "q" * n}]} for n in (3, 9, 4, 3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = local_config(
        data={"path": str(tmp_path / "rows.jsonl")},
        student={"model": student, "lora_rank": 0, "learning_rate": 0.002},
        teachers=[{"model": teacher, "scorer": {"name": "local", "dtype": "float32", "device": "cpu"}}],
    )
    result = distillkit.run(config)
    told = (result.run_dir / "run.log").read_text().splitlines()
    assert any("JambaForCausalLM: what prompts begin with is computed for each of them" in line for line in told)
    assert not any("sampled in batches of one length" in line for line in told)
    assert result.metrics[0]["rollout/logprob_mismatch_max"] < 1e-4
    tokenizer = HFTokenizer.load(student)
    device = Device(torch.device("cpu"))
    for source, column in ((student, "student_logprobs"), (teacher, "teacher_logprobs")):
        causal_lm = CausalLM.load(source, device, torch.float32, torch.float32)
        for record in read_jsonl(result.run_dir / "samples.jsonl"):
            prompt = tokenizer.encode(record["prompt"])
            expected = reference(causal_lm, PromptAndResponse(token_ids(prompt), token_ids(record["token_ids"])))
            found = record[column] if column == "student_logprobs" else next(iter(record[column].values()))
            torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "lfm2", "qwen3_5_text"])
def test_a_model_in_bfloat16_is_opened_and_trained(name: str, tmp_path: Path) -> None:
    """Mamba's hidden states stay in float32 whatever its weights are; its head takes its own format."""
    random_model(name, **RECURRENT[name]).to(torch.bfloat16).save_pretrained(tmp_path)
    causal_lm = proved(CausalLM.load(str(tmp_path), Device(torch.device("cpu")), torch.bfloat16, torch.bfloat16))
    exact = family(name).response_logprobs(items())
    assert (causal_lm.response_logprobs(items()) - exact).abs().mean() < 0.2
    policy = Policy.lora(causal_lm, 2, 4, 0.0, 0)
    with policy.training():
        policy.logprobs(items()).sum().backward()
    assert any(float(trained.grad.abs().max()) > 0 for trained in policy.trained.values() if trained.grad is not None)
