"""What `check` reckons, beside what is held: every tensor of the device's thread is counted while a run runs."""

from collections.abc import Callable
from dataclasses import replace
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
    Qwen3Config,
    Qwen3MoeConfig,
)

import distillkit
from distillkit import MemoryReport, PlannedDevice, Rank, Registry, RunConfig, RunContext
from distillkit.memory import GIB
from distillkit.preflight.memory_fit import DeviceFit, device_fits
from distillkit.preflight.prepared_run import prepare_run
from distillkit.testing import make_context, make_teacher
from distillkit.testing.builders import TEST_PLAN
from distillkit_builtin.local.activation_checkpointing import checkpoint_activations
from distillkit_builtin.local.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.memory import inference_sizes, reports
from distillkit_builtin.local.memory.allocation_meter import AllocationMeter
from distillkit_builtin.local.memory.inference_sizes import routed_numbers
from distillkit_builtin.local.memory.reports import LIBRARIES
from distillkit_builtin.local.memory.training_trace import Training, traced_bytes
from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent

Make = Callable[..., RunConfig]
WIDER: dict[str, Any] = {
    **tiny_models.SMALL, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16,
}  # fmt: skip
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


def qwen(hidden: int, ffn: int, layers: int, heads: int, *, tied: bool = True) -> PreTrainedConfig:
    sizes = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads}
    more = {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": tied}
    return Qwen3Config(**sizes, **more, max_position_embeddings=4096)


SHAPES = {
    "0.6B": qwen(1024, 3072, 28, 16),
    "1.7B": qwen(2048, 6144, 28, 16),
    "8B": qwen(4096, 12288, 36, 32, tied=False),
    "8B tied": qwen(4096, 12288, 36, 32),
    "12 layers": qwen(4096, 12288, 12, 32),
}
H200 = PlannedDevice("h200-141gb", 143_771 * 2**20)


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., DeviceFit]:
    """The fit of a run on one card, from configs alone: of 64 prompts with one completion each, or as many as given."""

    def fit(
        student: str,
        teacher: str,
        prompt: int,
        new: int,
        *,
        prompts: int = 64,
        each: int = 1,
        rank: Rank | None = None,
        device: PlannedDevice = H200,
        **options: Any,
    ) -> DeviceFit:
        for name in (student, teacher):
            SHAPES[name].save_pretrained(tmp_path / name)
        plan = replace(TEST_PLAN, step_rows=prompts, step_completions=prompts * each, new_tokens=new)
        plan = replace(plan, longest_prompt=prompt, longest_teacher_prompt=prompt)
        run = replace(make_context("student"), plan=plan, planned_device=device, rank=rank or Rank())
        scorer = LocalScorer().bind(replace(make_teacher(), model=str(tmp_path / teacher)))
        found = {
            "student": report(LocalStudent(model=str(tmp_path / student), **options), run),
            "teacher": report(scorer, replace(run, user="teacher")),
        }
        (device_fit,) = device_fits(found)
        return device_fit

    return fit


def report(plugin: LocalStudent | LocalScorer, run: RunContext) -> MemoryReport:
    found = plugin.memory(run)
    assert found is not None
    return found


def test_what_lowers_the_weights_is_among_what_is_offered(tmp_path: Path) -> None:
    SHAPES["0.6B"].save_pretrained(tmp_path / "0.6B")
    model = str(tmp_path / "0.6B")
    run = replace(make_context("student"), plan=TEST_PLAN, planned_device=H200)
    two = replace(run, rank=Rank(count=2, local_count=2))
    scorer = LocalScorer(dtype="float32").bind(replace(make_teacher(), model=model))
    every_weight = LocalStudent(model=model, lora_rank=0, dtype="float32", shard="never")
    for plugin, where, changes in (
        (scorer, run, ({"dtype": "bfloat16"},)),
        (every_weight, two, ({"lora_rank": 16}, {"dtype": "bfloat16"}, {"shard": "always"})),
    ):
        found = report(plugin, where)
        assert all(change in found.savers for change in changes)
        for change in changes:
            assert weights(report(plugin.model_copy(update=change), where)) < weights(found), change
    assert {"shard": "always"} not in report(every_weight, run).savers


def weights(found: MemoryReport) -> int:
    return sum(use.size_bytes for use in found.uses if use.part == "weights" and use.device != "cpu")


AS_IT_WAS = {"micro_batch_tokens": 16_384}
"""What `null` came to when these peaks were measured."""


@pytest.mark.parametrize(
    ("student", "teacher", "plan", "options", "measured"),
    [
        ("0.6B", "1.7B", (64, 1, 128, 256), {}, 25.0),
        ("0.6B", "1.7B", (64, 1, 128, 256), {"lora_rank": 0}, 35.0),
        ("0.6B", "1.7B", (64, 1, 128, 1920), {"lora_rank": 0}, 51.5),
        ("8B tied", "8B tied", (64, 1, 256, 512), {}, 94.0),
        ("0.6B", "1.7B", (32, 8, 128, 256), {"sample_batch_size": 256}, 36.5),
        ("12 layers", "0.6B", (64, 1, 256, 512), {}, 35.0),
        ("0.6B", "1.7B", (64, 1, 128, 256), {"lora_rank": 0, "gradient_checkpointing": True}, 20.3),
        ("0.6B", "1.7B", (64, 1, 128, 64), {"forward": "plain", "micro_batch_tokens": 4096}, 13.5),
    ],
)
def test_peaks_that_were_measured_on_a_gpu_are_reckoned(
    student: str,
    teacher: str,
    plan: tuple[int, int, int, int],
    options: dict[str, Any],
    measured: float,
    planned: Callable[..., DeviceFit],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In benchmarks/README.md; layers recomputed nothing then, the fast path's slots stayed, and the head saw 2,048
    positions."""
    monkeypatch.setattr(reports, "keeps_slots", lambda size, *, fast: fast)
    monkeypatch.setattr(inference_sizes, "keeps_slots", lambda size, *, fast: fast)
    monkeypatch.setattr(inference_sizes, "ON_CUDA", 2048)
    monkeypatch.setattr(reports, "recomputes", lambda options: False)
    monkeypatch.setattr(reports, "LARGE", 10**12)
    prompts, each, prompt, new = plan
    fit = planned(student, teacher, prompt, new, prompts=prompts, each=each, **{**AS_IT_WAS, **options})
    assert fit.peak / GIB == pytest.approx(measured, rel=0.05)
    assert fit.largest_phase == ("student", "training")


def test_a_lora_on_8b_taught_by_its_own_base_is_reckoned_below_48_gib(planned: Callable[..., DeviceFit]) -> None:
    """64 prompts of 256 tokens with 512 new ones each; by one copy of the weights far below."""
    row = ("8B", "8B", 256, 512)
    assert 38 < planned(*row).peak / GIB < 45
    beside = planned(*row, sampling_weights="adapter")
    assert 27 < beside.peak / GIB < 33
    parameters = 8_190_735_360
    assert beside.held("weights") == pytest.approx(2 * parameters + (16 + 2) * 43_646_976, rel=0.001)


def test_a_merged_copy_is_made_where_card_and_model_leave_room(planned: Callable[..., DeviceFit]) -> None:
    row = ("8B", "8B", 256, 512)
    merged, beside = (planned(*row, sampling_weights=how).held("weights") for how in ("merged", "adapter"))
    for card, expected in (("80gb", merged), ("48gb", beside)):
        device = PlannedDevice(card, int(card[:2]) * GIB)
        assert planned(*row, device=device).held("weights") == expected, card
    assert planned("0.6B", "1.7B", 128, 256, device=PlannedDevice("24gb", 24 * GIB)).held("weights") == planned(
        "0.6B", "1.7B", 128, 256, sampling_weights="merged"
    ).held("weights")


def test_what_is_said_to_lower_the_peak_lowers_it(planned: Callable[..., DeviceFit]) -> None:
    shape = ("0.6B", "1.7B", 128, 256)
    whole = planned(*shape, lora_rank=0).peak
    for change in ({"gradient_checkpointing": True}, {"micro_batch_tokens": 4096}, {"sample_batch_size": 16}):
        assert planned(*shape, lora_rank=0, **change).peak < whole
    assert planned(*shape, lora_rank=16).peak < whole


def test_ranks_hold_their_share_and_a_part_of_sharded_weights(planned: Callable[..., DeviceFit]) -> None:
    alone, shared, sharded = (
        planned("0.6B", "1.7B", 128, 256, lora_rank=0, **more)
        for more in ({}, {"rank": Rank(0, 4, 0, 4)}, {"rank": Rank(0, 4, 0, 4), "shard": "always"})
    )
    assert shared.held("weights") == alone.held("weights")
    assert shared.held("caches") == alone.held("caches") // 4
    trained = SHAPES_PARAMETERS * 16
    assert alone.held("weights") - sharded.held("weights") == pytest.approx(trained * 3 / 4, rel=0.01)


SHAPES_PARAMETERS = 596_049_920
"""Of Qwen3-0.6B."""


def test_a_teacher_that_is_the_base_of_the_lora_is_counted_once(planned: Callable[..., DeviceFit]) -> None:
    fit = planned("0.6B", "0.6B", 128, 256, lora_rank=16)
    assert [use.what for use in fit.uses["teacher"] if use.part == "weights"] == []
    assert sum(use.what.startswith("frozen weights") for use in fit.uses["student"]) == 1


def test_experts_of_several_widths_count_as_the_widest() -> None:
    sizes = {"hidden_size": 64, "num_experts_per_tok": 2}
    several = PreTrainedConfig(**sizes, moe_intermediate_size=[48, 32])
    assert routed_numbers(several) == routed_numbers(PreTrainedConfig(**sizes, moe_intermediate_size=48))
