"""What `check` reckons, beside what is held: every tensor of the device's thread is counted while a run runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import question
from helpers import tiny_models
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)

import distillkit
from builtin.local.memory.memory_reports import WIDER
from distillkit import Registry, RunConfig
from distillkit.preflight.prepared_run import prepare_run
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.memory.allocation_meter import AllocationMeter
from distillkit_builtin.local.memory.inference_sizes import routed_numbers
from distillkit_builtin.local.memory.reports import LIBRARIES
from distillkit_builtin.local.memory.training_trace import Training, traced_bytes
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.training.policy import Policy

Make = Callable[..., RunConfig]
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**WIDER, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**WIDER, sliding_window=16),
    "mistral": MistralConfig(**WIDER, sliding_window=16),
    "qwen3_moe": Qwen3MoeConfig(**WIDER, num_experts=8, num_experts_per_tok=4, moe_intermediate_size=96),
}


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The directory of a model wide enough for its layers to be what counts, of a family."""
    written: dict[str, str] = {}

    def write(family: str) -> str:
        if family not in written:
            folder = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(FAMILIES[family]).save_pretrained(folder)
            tiny_models.write_tokenizer(folder)
            written[family] = str(folder)
        return written[family]

    return write


@pytest.fixture
def meters(monkeypatch: pytest.MonkeyPatch) -> list[AllocationMeter]:
    """One for each thread of a device that is made from now on."""
    made: list[AllocationMeter] = []

    def count(self: Device) -> None:
        made.append(AllocationMeter())
        made[-1].__enter__()

    monkeypatch.setattr(Device, "_select", count)
    return made


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("llama", {}),
        ("llama", {"lora_rank": 0}),
        ("llama", {"gradient_checkpointing": True}),
        ("llama", {"lora_rank": 0, "gradient_checkpointing": True}),
        ("llama", {"micro_batch_tokens": 300}),
        ("llama", {"forward": "plain"}),
        ("llama", {"sampling_weights": "adapter"}),
        ("llama", {"teacher": "its own base"}),
        ("llama", {"completions": 6}),
        ("gemma2", {}),
        ("mistral", {}),
        ("qwen3_moe", {"lora_rank": 0}),
    ],
)
def test_the_peak_of_a_run_is_what_check_says(
    family: str,
    options: dict[str, Any],
    local_config: Make,
    wider: Callable[[str], str],
    meters: list[AllocationMeter],
    jsonl: Callable[..., str],
) -> None:
    model = wider(family)
    own, each = options.get("teacher"), options.get("completions", 2)
    options = {name: value for name, value in options.items() if name not in ("teacher", "completions")}
    on_cpu = {"name": "local", "dtype": "float32", "device": "cpu"}
    config = local_config(
        data={"path": jsonl([question(f"number {i} " * 8) for i in range(16)], "long.jsonl")},
        student={"model": model, "lora_rank": 16, "lora_alpha": 32, **options},
        sampling={"completions_per_prompt": each},
        train={"prompt_groups_per_step": 8, "max_steps": 2},  # the moments are there from the second step on
        **({"teachers": [{"model": model, "scorer": on_cpu}]} if own else {}),
    )
    (fit,) = prepare_run(config, Registry.discover(), print).memory.fits
    distillkit.run(config)
    (meter,) = meters
    assert 0.85 < (fit.peak - LIBRARIES) / meter.peak < 1.15


@pytest.mark.parametrize("lora_rank", [4, 0])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_pass_without_data_holds_what_a_real_one_does(
    lora_rank: int, packs: bool, checkpoints: bool, wider: Callable[[str], str]
) -> None:
    items = [PromptAndResponse(np.full(30, i // 2), np.arange(20)) for i in range(6)]
    training = Training(wider("llama"), torch.float32, lora_rank, packs, checkpoints)
    model = AutoModelForCausalLM.from_pretrained(training.source, dtype=torch.float32).requires_grad_(False)
    causal_lm = CausalLM(model, Device(torch.device("cpu")), torch.float32)
    policy = Policy.lora(causal_lm, lora_rank, 8, 0.0, 0) if lora_rank else Policy.full(causal_lm)
    policy.packs = packs
    if checkpoints:
        checkpoint_activations(model)
    for parameter in policy.trained.values():
        parameter.grad = torch.zeros_like(parameter)
    with policy.training(), AllocationMeter() as meter:
        for parameter in model.parameters():
            meter.ignore(parameter)
        torch.autograd.backward(policy.logprobs(items).sum())
    assert traced_bytes(training, items) == pytest.approx(meter.peak, rel=0.2)


def test_what_cannot_be_traced_is_not_guessed_at_by_the_trace(tmp_path: Path) -> None:
    FAMILIES["llama"].save_pretrained(tmp_path)
    nothing = [PromptAndResponse(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))]
    assert traced_bytes(Training(str(tmp_path), torch.float32, 4, False, False), nothing) is None


def test_experts_of_several_widths_count_as_the_widest() -> None:
    sizes = {"hidden_size": 64, "num_experts_per_tok": 2}
    several = PreTrainedConfig(**sizes, moe_intermediate_size=[48, 32])
    assert routed_numbers(several) == routed_numbers(PreTrainedConfig(**sizes, moe_intermediate_size=48))
