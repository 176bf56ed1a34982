"""Sequences for recurrent models, and their logprobs one by one."""

from pathlib import Path

import numpy as np
import torch
from helpers.model_families import random_causal_lm
from helpers.own_forward import reference
from helpers.recurrent_families import RECURRENT
from helpers.tiny_models import write_tokenizer
from torch import Tensor

from distillkit.arrays import token_ids
from distillkit.records import Rollout
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator


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
