"""In training only the LoRA's own dropout is random; all else is the function that samples."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_causal_lm

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy

RANDOM: Mapping[str, Mapping[str, Any]] = {
    "llama": {"attention_dropout": 0.5},
    "qwen3": {"attention_dropout": 0.5},
    "granite": {"attention_dropout": 0.5},
    "seed_oss": {"attention_dropout": 0.5, "residual_dropout": 0.5},
    "gpt2": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "gpt_bigcode": {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5},
    "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
    "xglm": {"dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5, "layerdrop": 0.5},
    "biogpt": {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5, "layerdrop": 0.5},
    "gpt_neox": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
    "mixtral": {"router_jitter_noise": 0.5, "attention_dropout": 0.5},
    "phimoe": {"router_jitter_noise": 0.5, "input_jitter_noise": 0.5},
}
"""By model type: what its config says of chance, all of it on."""
PACKED = ("llama", "qwen3")


def items() -> list[PromptAndResponse]:
    numbers = np.random.default_rng(0)
    return [
        PromptAndResponse(token_ids(numbers.integers(5, 250, p)), token_ids(numbers.integers(5, 250, r)))
        for p, r in ((5, 9), (11, 3), (5, 4))
    ]


def alone(causal_lm: CausalLM) -> torch.Tensor:
    return torch.cat([plain_logprobs(causal_lm.model, item) for item in items()])


def gradients(policy: Policy, logprobs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad((logprobs * torch.linspace(-1, 1, len(logprobs))).sum(), list(policy.trained.values()))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("kind", RANDOM)
def test_what_is_trained_is_the_function_that_samples(kind: str, checkpointing: bool) -> None:
    policy = Policy.full(random_causal_lm(kind, **RANDOM[kind]))
    expected = alone(policy.causal_lm)
    theirs = gradients(policy, expected)
    if kind in PACKED:
        policy.pack()
    if checkpointing:
        checkpoint_activations(policy.causal_lm.model)
    with policy.training():
        logprobs = policy.logprobs(items())
        mine = gradients(policy, logprobs)
    torch.testing.assert_close(logprobs, expected, atol=1e-4, rtol=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * largest, rtol=1e-3)


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("kind", ["llama", "opt", "gpt2"])
def test_nor_is_anything_random_where_weights_are_sharded(kind: str, checkpointing: bool) -> None:
    policy = Policy.full(random_causal_lm(kind, **RANDOM[kind]))
    expected = alone(policy.causal_lm).detach()
    if checkpointing:
        checkpoint_activations(policy.causal_lm.model)
    policy.shard(1)
    with policy.training():
        logprobs = policy.logprobs(items())
        logprobs.sum().backward()
    torch.testing.assert_close(logprobs.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_the_loras_dropout_is_on_and_nothing_else_is(kind: str, checkpointing: bool) -> None:
    policy = Policy.lora(random_causal_lm(kind, **RANDOM[kind]), rank=4, alpha=8, dropout=0.5, seed=0)
    if checkpointing:
        checkpoint_activations(policy.causal_lm.model)
    with policy.training():
        first, again = policy.logprobs(items()), policy.logprobs(items())
    torch.testing.assert_close(first, again, atol=0, rtol=0)  # its B is zero as yet
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    with policy.training():
        first, again = policy.logprobs(items()), policy.logprobs(items())
    assert not torch.allclose(first, again, atol=1e-3)
    after = policy.logprobs(items())
    torch.testing.assert_close(after, alone(policy.causal_lm), atol=1e-4, rtol=1e-4)


def test_recomputed_activations_use_the_same_random_numbers() -> None:
    def gradient(prepare: Callable[[torch.nn.Module], None]) -> tuple[torch.Tensor, ...]:
        policy = Policy.lora(random_causal_lm("opt", dropout=0.5), rank=4, alpha=8, dropout=0.5, seed=0)
        with torch.no_grad():
            for parameter in policy.trained.values():
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
        prepare(policy.causal_lm.model)
        torch.manual_seed(1)
        with policy.training():
            return gradients(policy, policy.logprobs(items()))

    kept, recomputed = gradient(lambda model: None), gradient(checkpoint_activations)
    for one, other in zip(kept, recomputed, strict=True):
        torch.testing.assert_close(one, other)
