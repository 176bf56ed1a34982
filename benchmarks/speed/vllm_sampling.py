"""Sampling alone by vLLM, as it compiles and schedules by itself; with logprobs of the sampled ids and without.

Nothing is cached from one call for the next, prompts have nothing in common, and text is not made of the ids.
"""

import time
from pathlib import Path
from typing import Any

import torch
from vllm import LLM, SamplingParams

from benchmarks.speed.sampling_sizes import SamplingSize, random_prompts
from benchmarks.speed.shapes import Shape
from benchmarks.speed.trl_settings import BLOCK, utilization

ASKED = {"without logprobs": None, "with logprobs": 0}
"""0: of the sampled id and no other."""


def engine_options(model: Path, shape: Shape, sizes: list[SamplingSize], device_bytes: int | None) -> dict[str, Any]:
    """Of `LLM`: as much memory as holds all sequences of every size at once."""
    longest = shape.prompt_tokens + max(size.new_tokens for size in sizes) + BLOCK
    most = max(size.completions for size in sizes)
    fractions = [
        utilization(shape.student, size.completions, shape.prompt_tokens + size.new_tokens + BLOCK, device_bytes)
        for size in sizes
        if device_bytes is not None
    ]
    return {
        "model": str(model),
        "dtype": shape.dtype,
        "seed": 0,
        "max_model_len": longest,
        "max_num_seqs": most,
        "enable_prefix_caching": False,
        **({"gpu_memory_utilization": max(fractions)} if fractions else {}),
    }


def measure(
    inputs: dict[str, Path], shape: Shape, sizes: list[SamplingSize], repeats: int, options: dict[str, Any]
) -> dict[str, Any]:
    """By size: tokens a second, of the fastest of so many calls after one more. `options` are further ones of `LLM`."""
    device_bytes = torch.cuda.mem_get_info()[1] if shape.device == "cuda" else None
    llm = LLM(**{**engine_options(inputs["student"], shape, sizes, device_bytes), **options})
    found = {}
    for size in sizes:
        prompts = [{"prompt_token_ids": ids} for ids in random_prompts(shape, size)]
        found[str(size)] = {
            name: _tokens_per_second(llm, prompts, _sampling(size, asked), repeats) for name, asked in ASKED.items()
        }
    return {"tokens_per_second": found}


def _sampling(size: SamplingSize, logprobs: int | None) -> SamplingParams:
    return SamplingParams(
        temperature=1.0, max_tokens=size.new_tokens, ignore_eos=True, logprobs=logprobs, detokenize=False
    )


def _tokens_per_second(llm: LLM, prompts: list[dict[str, list[int]]], params: SamplingParams, repeats: int) -> float:
    fastest = float("inf")
    for call in range(1 + repeats):
        begin = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        if call:
            fastest = min(fastest, time.perf_counter() - begin)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / fastest
