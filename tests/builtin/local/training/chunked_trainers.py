"""Trainers of losses that read distributions."""

from typing import Any

import torch
from helpers.distribution_losses import chunked

from builtin.local.training.sampled_batches import PLAIN
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer


def policy_of(causal_lm: CausalLM, how: str) -> Policy:
    """A LoRA that does something; on the head too; or all weights."""
    if how == "all":
        return Policy.full(causal_lm)
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():
        for name, parameter in policy.trained.items():
            if "lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    return policy


def trainer_of(policy: Policy, teacher: CausalLM, **chunks: Any) -> Trainer:
    return Trainer(policy, PLAIN, chunked({"t": teacher}, **chunks))


def gradients(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in policy.trained.items() if p.grad is not None}
