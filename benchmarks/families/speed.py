"""Tokens a second of sampling, ours and transformers' generate, and seconds of a training step."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import distillkit
from benchmarks.families.models import TINY_VOCABULARY
from benchmarks.families.sizes import LORA_RANK, Sizes, run_config
from distillkit.arrays import token_ids
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.file_errors import one_line
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.device import Device, resolve_dtype
from distillkit_builtin.local.inference.forward_choice import choose_backbone
from distillkit_builtin.local.inference.generator import generator_for
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS
from distillkit_builtin.local.option_types import ForwardName

REPEATS = 2
"""The best counts; one more comes before."""
Row = dict[str, Any]


def measure(inputs: dict[str, Path], sizes: Sizes, device: dict[str, Any], folder: Path) -> Iterator[Row]:
    """A row for each thing that is measured; the slowest to begin with, transformers' compiled decoding, comes last."""
    for forward in ("auto", "plain"):
        case = f"training, forward: {forward}"
        yield _row(case, lambda forward=forward: _training(inputs, sizes, device, folder, forward))
    torch_device = torch.device(device["device"])
    dtype = resolve_dtype(device["dtype"], torch_device)
    causal_lm = CausalLM.load(str(inputs["student"]), Device(torch_device), dtype, dtype)
    for forward in ("auto", "plain"):
        case = f"sampling, forward: {forward}"
        yield _row(case, lambda forward=forward: _sampling(causal_lm, inputs["student"], sizes, forward))
    for cache in ("dynamic", "static"):
        yield _row(f"transformers' generate, {cache} cache", lambda cache=cache: _generate(causal_lm, sizes, cache))


def _row(case: str, work: Callable[[], Row]) -> Row:
    try:
        return {"case": case, **work()}
    except (distillkit.DistillkitError, *MODEL_ERRORS) as error:
        return {"case": case, "error": one_line(error)}


def _training(inputs: dict[str, Path], sizes: Sizes, device: dict[str, str], folder: Path, forward: str) -> Row:
    """Of a LoRA; the first steps may compile."""
    student = {"lora_rank": LORA_RANK, "forward": forward}
    result = distillkit.run(run_config(inputs, sizes, device, student, folder / f"training-{forward}"))
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    log = (result.run_dir / "run.log").read_text()
    return {
        "seconds": min(line["time/train"] for line in lines[1:] if "time/train" in line),
        "first_seconds": lines[0]["time/train"],
        "packed": forward == "auto" and "padded in training" not in log,
    }


def _prompts(sizes: Sizes) -> np.ndarray:
    return np.random.default_rng(0).integers(2, TINY_VOCABULARY, (sizes.prompts, sizes.prompt_tokens))


def _sampling(causal_lm: CausalLM, model: Path, sizes: Sizes, forward: ForwardName) -> Row:
    notices: list[str] = []
    backbone = choose_backbone(causal_lm, forward, notices.append)
    generator = generator_for(causal_lm, backbone, HFTokenizer.load(str(model)))
    params = SamplingParams(max_tokens=sizes.new_tokens)
    requests = [
        SampleRequest(SampleKey(f"{i}", 0, 0), token_ids(ids), i, params) for i, ids in enumerate(_prompts(sizes))
    ]
    drawn = 0

    def sample() -> int:
        nonlocal drawn
        drawn = 0

        def count(rollout: distillkit.Rollout) -> None:
            nonlocal drawn
            drawn += len(rollout.token_ids)

        generator.generate(requests, sizes.prompts, 0, count)
        return drawn

    rate = _rate(sample)
    generator.free_caches()
    return {"tokens_per_second": rate, "fast": backbone is not None, "notices": notices}


def _generate(causal_lm: CausalLM, sizes: Sizes, cache: str) -> Row:
    """Sampled from the whole distribution, as ours are."""
    ids = torch.from_numpy(_prompts(sizes)).to(causal_lm.device.device)
    options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": sizes.new_tokens, "eos_token_id": None}
    static = {"cache_implementation": "static"} if cache == "static" else {}

    def sample() -> int:
        out = causal_lm.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options, **static)
        return int((out.shape[1] - ids.shape[1]) * len(ids))

    return {"tokens_per_second": _rate(sample)}


def _rate(work: Callable[[], int]) -> float:
    """Tokens a second of the fastest call, after one that may compile."""

    def timed() -> float:
        begin = time.perf_counter()
        tokens = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return tokens / (time.perf_counter() - begin)

    return max([timed() for _ in range(1 + REPEATS)][1:])
