"""Batches of sampled tokens, and trainers of a LoRA that does something."""

from dataclasses import replace

import numpy as np
import torch

from distillkit.arrays import frozen_array, token_ids
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import OptimizerOptions, Trainer
from distillkit_builtin.losses.importance_sampling import importance_sampling

PLAIN = OptimizerOptions(
    learning_rate=0.01,
    schedule="constant_with_warmup",
    warmup_steps=0,
    total_steps=10,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    grad_clip_norm=0.0,
    micro_batch_tokens=4096,
    seed=0,
)
CAP = 0.5


def batch(seed: int = 0) -> Batch:
    """Five completions with sampling logprobs near and far from the policy's, some tokens without weight."""
    rng = np.random.default_rng(seed)
    datums = []
    for i in range(5):
        length = int(rng.integers(1, 9))
        inputs = {
            "sampling_logprobs": rng.normal(-4, 2, length),
            "advantages": rng.normal(0, 1, length),
            "weights": rng.random(length) * (rng.random(length) > 0.2),
        }
        arrays = {name: frozen_array(values, np.float32) for name, values in inputs.items()}
        prompt = token_ids(rng.integers(5, 250, 3 + i))
        datums.append(Datum(SampleKey("1-x", 0, i), prompt, token_ids(rng.integers(5, 250, length)), arrays))
    return Batch("importance_sampling", {"ratio_log_cap": CAP}, tuple(datums), importance_sampling)


def lora(causal_lm: CausalLM, **options: float) -> Trainer:
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    with torch.no_grad():  # a LoRA starts at zero, where half of its gradients are
        for name, parameter in policy.trained.items():
            if "lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    return Trainer(policy, replace(PLAIN, **options))  # type: ignore[arg-type]


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in trainer.policy.trained.items() if p.grad is not None}
