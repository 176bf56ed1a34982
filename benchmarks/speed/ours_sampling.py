"""Sampling alone by distillkit: token ids and their logprobs, as a run samples them."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.machine import best
from benchmarks.speed.sampling_sizes import SamplingSize, random_prompts
from benchmarks.speed.shapes import Shape
from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device, resolve_dtype
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.model.causal_lm import CausalLM

END = 1
"""The token that ends a completion: its place in the vocabulary is as likely as any other's."""


def measure(
    inputs: dict[str, Path], shape: Shape, sizes: list[SamplingSize], repeats: int, options: dict[str, Any]
) -> dict[str, Any]:
    """By size: tokens a second, always with logprobs. `options` has none."""
    device = torch.device(shape.device)
    dtype = resolve_dtype(shape.dtype, device)  # type: ignore[arg-type]
    model = str(inputs["student"])
    causal_lm = proved(CausalLM.load(model, Device(device), dtype, dtype))
    backbone, tokenizer = verified_backbone(causal_lm), HFTokenizer.load(model)
    found = {}
    for size in sizes:
        generator = SlotGenerator(backbone, tokenizer, frozenset({END}))
        params = SamplingParams(max_tokens=size.new_tokens)
        requests = [
            SampleRequest(SampleKey(f"{i}", 0, 0), token_ids(ids), i, params)
            for i, ids in enumerate(random_prompts(shape, size))
        ]
        rollouts: list[Rollout] = []

        def sample(
            generator: SlotGenerator = generator,
            requests: list[SampleRequest] = requests,
            rollouts: list[Rollout] = rollouts,
        ) -> None:
            rollouts.clear()
            generator.generate(requests, len(requests), 0, rollouts.append)

        seconds = best(sample, shape.device, repeats)
        tokens = sum(len(rollout.token_ids) for rollout in rollouts)
        found[str(size)] = {"with logprobs": tokens / seconds}
    return {"tokens_per_second": found}
