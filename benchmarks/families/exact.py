"""What a run recorded, beside transformers' eager forward of the same tokens: float32, on the CPU, a sequence alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import distillkit
from benchmarks.families.sizes import LORA_RANK, Sizes, run_config
from distillkit import RunConfig
from distillkit_builtin.file_errors import one_line
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS
from distillkit_builtin.local.training.policy import Policy

CPU = Device(torch.device("cpu"))
MISMATCH = "rollout/logprob_mismatch_max"
Row = dict[str, Any]


def measure(inputs: dict[str, Path], sizes: Sizes, devices: list[dict[str, str]], folder: Path) -> Iterator[Row]:
    """A row for each way to train on each device; a refusal is a row too."""
    for training, rank in (("LoRA", LORA_RANK), ("all weights", 0)):
        for device in devices:
            name = f"{training}, {device['device']} {device['dtype']}"
            config = run_config(inputs, sizes, device, {"lora_rank": rank}, folder / name.replace(" ", "-"))
            try:
                yield {"case": name, **_compare(config, inputs, rank)}
            except (distillkit.DistillkitError, *MODEL_ERRORS) as error:
                yield {"case": name, "error": one_line(error)}


def _compare(config: RunConfig, inputs: dict[str, Path], rank: int) -> Row:
    """The run's figures, and how far they are from the reference, in nats."""
    result = distillkit.run(config)
    steps = _lines(result.run_dir / "metrics.jsonl")
    samples = [line for line in _lines(result.run_dir / "samples.jsonl") if line["step"] == 1]
    first = next(step for step in steps if "train/grad_norm" in step)
    student, teacher = (_eager(inputs[which]) for which in ("student", "teacher"))
    prompts = _prompts(inputs["student"], samples)
    with torch.no_grad():
        ours = [_logprobs(student, ids, line["token_ids"]) for ids, line in zip(prompts, samples, strict=True)]
        theirs = [_logprobs(teacher, ids, line["token_ids"]) for ids, line in zip(prompts, samples, strict=True)]
    recorded = [torch.tensor(line["student_logprobs"]) for line in samples]
    scored = [torch.tensor(next(iter(line["teacher_logprobs"].values()))) for line in samples]
    norm = _gradient_norm(student, rank, config, prompts, samples, ours, theirs)
    return {
        "student": _distance(recorded, ours),
        "teacher": _distance(scored, theirs),
        "mismatch": max(
            step["rollout/logprob_mismatch_max"] for step in steps if "rollout/logprob_mismatch_max" in step
        ),
        "gradient_norm": first["train/grad_norm"],
        "reference_gradient_norm": norm,
        "tokens": sum(map(len, recorded)),
    }


def _distance(found: list[Tensor], expected: list[Tensor]) -> dict[str, float]:
    apart = (torch.cat(found) - torch.cat(expected)).abs()
    return {"max": float(apart.max()), "mean": float(apart.mean())}


def _lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _prompts(model: Path, samples: list[Row]) -> list[list[int]]:
    tokenizer = HFTokenizer.load(str(model))
    return [list(tokenizer.encode(line["prompt"])) for line in samples]


def _eager(model: Path) -> CausalLM:
    causal_lm = CausalLM.load(str(model), CPU, torch.float32, torch.float32)
    causal_lm.model.config.get_text_config()._attn_implementation = "eager"
    return causal_lm


def _logprobs(causal_lm: CausalLM, prompt: list[int], response: list[int]) -> Tensor:
    """[R] of the response, by the model's own head, without cache and padding."""
    ids = torch.tensor([[*prompt, *response]])
    logits = causal_lm.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(response)[:, None])[:, 0]


def _gradient_norm(
    student: CausalLM,
    rank: int,
    config: RunConfig,
    prompts: list[list[int]],
    samples: list[Row],
    ours: list[Tensor],
    theirs: list[Tensor],
) -> float:
    """Of the mean over all tokens of minus advantage times logprob, which the loss is where the ratio is 1."""
    policy = Policy.lora(student, rank, 2 * rank, 0.0, config.seed) if rank else Policy.full(student)
    tokens = sum(map(len, ours))
    for ids, line, own, teachers in zip(prompts, samples, ours, theirs, strict=True):
        logprobs = _logprobs(student, ids, line["token_ids"])
        (-(teachers - own) * logprobs).sum().div(tokens).backward()
    squares = [parameter.grad.square().sum() for parameter in policy.trained.values() if parameter.grad is not None]
    return float(torch.stack(squares).sum().sqrt())
