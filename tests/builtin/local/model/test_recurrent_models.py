"""Recurrent and hybrid models are batched as was proved of them, and every number is that of the sequence alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_jsonl
from helpers.model_families import random_causal_lm, random_model
from helpers.own_forward import reference
from helpers.recurrent_families import RECURRENT
from helpers.tiny_models import write_tokenizer
from torch import Tensor

import distillkit
from distillkit import RunConfig
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.inference import kernel_packages
from distillkit_builtin.local.inference.kernel_packages import missing_kernel_packages
from distillkit_builtin.local.inference.scoring import score_logprobs
from distillkit_builtin.local.model.batching import TOGETHER, Batching
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.model_cache import select_rows
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator
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


def family(name: str) -> CausalLM:
    return random_causal_lm(name, **RECURRENT[name])


def items() -> list[PromptAndResponse]:
    """Of different lengths; all begin alike, far enough to be computed once; two prompts are as long as each other."""
    numbers = np.random.default_rng(0)
    start = numbers.integers(5, 250, 20)
    lengths = ((1, 9), (4, 3), (9, 6), (4, 7))
    return [
        PromptAndResponse(
            token_ids(np.concatenate([start, numbers.integers(5, 250, own)])), token_ids(numbers.integers(5, 250, new))
        )
        for own, new in lengths
    ]


def references(causal_lm: CausalLM) -> Tensor:
    return torch.cat([reference(causal_lm, item) for item in items()])


def sampled(causal_lm: CausalLM, folder: Path, size: int = 4) -> list[Rollout]:
    """Completions of the items' prompts, which end at different lengths."""
    write_tokenizer(folder)
    generator = PlainGenerator(causal_lm, HFTokenizer.load(str(folder)), frozenset(range(3, 60)))
    params = SamplingParams(max_tokens=9)
    requests = [SampleRequest(SampleKey("1-x", 0, i), item.prompt_ids, i, params) for i, item in enumerate(items())]
    rollouts: list[Rollout] = []
    generator.generate(requests, size, 0, rollouts.append)
    return rollouts


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


def changed(change: Callable[[Any, Tensor], Tensor]) -> CausalLM:
    """A llama whose hidden states are changed; `change` gets the call's arguments too."""
    causal_lm = random_causal_lm("llama")
    forward = causal_lm.backbone.forward

    def other(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.last_hidden_state = change(kwargs, out.last_hidden_state)
        return out

    causal_lm.backbone.forward = other
    return proved(causal_lm)


def test_where_left_padding_is_broken_prompts_of_one_length_are_sampled_together(tmp_path: Path) -> None:
    widths: list[tuple[int, ...]] = []

    def broken(given: Any, hidden: Tensor) -> Tensor:
        widths.append(tuple(given["input_ids"].shape))
        return hidden * (1 + 0.1 * (given.get("attention_mask") is not None))

    causal_lm = changed(broken)
    assert causal_lm.batching == Batching(left_padding=False, right_padding=True, shared_prefix=True)
    widths.clear()
    for rollout in sampled(causal_lm, tmp_path):
        expected = reference(causal_lm, PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids))
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)
    assert {shape for shape in widths if shape[1] in (21, 24, 29)} >= {(1, 21), (2, 24), (1, 29)}
    (note,) = causal_lm.batching.sampling_notes("Broken")
    assert note.startswith("Broken: prompts of different lengths are sampled in batches of one length: ")


def test_where_right_padding_is_broken_sequences_of_one_length_are_trained_and_scored_together() -> None:
    def broken(given: Any, hidden: Tensor) -> Tensor:
        return hidden * (1 + 0.1 * (given["input_ids"][:, -1:, None] == 0))

    causal_lm = changed(broken)
    assert causal_lm.batching == Batching(left_padding=True, right_padding=False, shared_prefix=False)
    policy = Policy.full(causal_lm)
    some = [*items(), *items()]
    groups = policy.micro_batches(some, 10_000)
    assert sorted(map(len, groups)) == [2, 2, 2, 2]
    with policy.training():
        for group in groups:
            expected = torch.cat([reference(causal_lm, some[i]) for i in group])
            found = policy.logprobs([some[i] for i in group]).detach()
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert "sequences are trained in batches of one length" in next(causal_lm.batching.training_notes("Broken"))
    assert sum("scored in batches of one length" in note for note in causal_lm.batching.scoring_notes("Broken")) == 1


def test_a_way_that_raises_is_not_taken() -> None:
    def raises(given: Any, hidden: Tensor) -> Tensor:
        if "attention_mask" in given:
            raise ValueError("no masks here")
        return hidden

    assert not changed(raises).batching.left_padding


def test_what_fails_in_rows_of_one_length_too_is_refused() -> None:
    for share in (0.1, 5e-4):  # as little as a state space layer that forgets a limit of its steps moves
        with pytest.raises(InputError, match=r"hidden states of a sequence token by token are .* serve it over HTTP"):
            changed(lambda given, hidden, share=share: hidden * (1 + share * (hidden.shape[1] == 1)))


@pytest.mark.parametrize(("name", "way"), [("mamba", "left_padding"), ("jamba", "shared_prefix")])
def test_a_fault_of_recurrent_layers_is_found_in_bfloat16_too(name: str, way: str) -> None:
    causal_lm = family(name)
    causal_lm.model.to(torch.bfloat16)
    assert not getattr(proved(causal_lm).batching, way)


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
