"""What `check` reckons for a loss that reads whole distributions, beside what is held."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import question
from helpers import tiny_models
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

import distillkit
from builtin.local.memory.memory_reports import H200, WIDER, report, weights
from distillkit import Registry, RunConfig
from distillkit.preflight.prepared_run import prepare_run
from distillkit.testing import make_context, make_teacher
from distillkit.testing.builders import TEST_PLAN
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.memory.allocation_meter import AllocationMeter
from distillkit_builtin.local.memory.reports import LIBRARIES
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.divergence import Divergence

VOCABULARY = 3000


@pytest.fixture(scope="module")
def many_ids(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose head is what counts."""
    folder = tmp_path_factory.mktemp("many-ids")
    torch.manual_seed(0)
    config = LlamaConfig(**{**WIDER, "vocab_size": VOCABULARY}, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_models.write_tokenizer(folder, more_special=[f"<{i}>" for i in range(VOCABULARY - tiny_models.VOCABULARY)])
    return str(folder)


@pytest.mark.parametrize("lora_rank", [16, 0])
def test_the_peak_of_a_run_on_distributions_is_what_check_says(
    lora_rank: int,
    local_config: Callable[..., RunConfig],
    many_ids: str,
    jsonl: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[AllocationMeter] = []

    def count(self: Device) -> None:
        made.append(AllocationMeter())
        made[-1].__enter__()

    monkeypatch.setattr(Device, "_select", count)
    config = local_config(
        loss=Divergence(),
        data={"path": jsonl([question(f"number {i} " * 8) for i in range(8)], "long.jsonl")},
        student={"model": many_ids, "lora_rank": lora_rank},
        teachers=[{"model": many_ids, "scorer": {"name": "local", "dtype": "float32", "device": "cpu"}}],
        train={"prompt_groups_per_step": 8, "max_steps": 2},
    )
    (fit,) = prepare_run(config, Registry.discover(), print).memory.fits
    distillkit.run(config)
    (meter,) = made
    assert 0.8 < (fit.peak - LIBRARIES) / meter.peak < 1.5
    assert fit.largest_phase == ("student", "training")


def test_smaller_chunks_lower_it_and_are_offered(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 4, "vocab_size": 151_936}
    Qwen3Config(**sizes).save_pretrained(tmp_path)
    teacher = replace(make_teacher(), model=str(tmp_path))
    plan = replace(TEST_PLAN, step_rows=64, step_completions=64, new_tokens=256)
    run = replace(make_context("student", teachers=[teacher]), plan=plan, planned_device=H200)
    whole = replace(run, loss_reads=frozenset({"distribution", "full"}))
    student = LocalStudent(model=str(tmp_path))
    found, smaller = report(student, whole), report(student.model_copy(update={"loss_chunk_positions": 64}), whole)
    assert {"loss_chunk_positions": 64} in found.savers
    assert weights(found) == weights(smaller)
    (chunk,) = (use for use in found.uses if "512 positions at once" in use.what)
    (small,) = (use for use in smaller.uses if "64 positions at once" in use.what)
    assert chunk.size_bytes - small.size_bytes > (512 - 64) * 151_936 * 4 * 8
    assert not any("positions at once" in use.what for use in report(student, run).uses)


@pytest.mark.parametrize("chunk", [None, 64])
def test_all_weights_have_a_chunk_of_logits_whatever_the_loss_reads(tmp_path: Path, chunk: int | None) -> None:
    """Logits and their gradient in the compute dtype, the head's gradient twice in float32, and the hidden states."""
    hidden, vocabulary, responses = 1024, 151_936, 64 * 256
    sizes: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": 4, "vocab_size": vocabulary}
    Qwen3Config(**sizes).save_pretrained(tmp_path)
    plan = replace(TEST_PLAN, step_rows=64, step_completions=64, longest_prompt=16, new_tokens=256)
    run = replace(make_context("student"), plan=plan, planned_device=H200)
    options = {"lora_rank": 0, "loss_chunk_positions": chunk, "micro_batch_tokens": 64 * (16 + 256)}
    found = report(LocalStudent(model=str(tmp_path), **options), run)
    positions = 4 * (chunk or 512)
    (use,) = (use for use in found.uses if f"{positions:,} positions at once" in use.what)
    assert use.size_bytes == positions * vocabulary * 2 * 2 + 2 * vocabulary * hidden * 4 + responses * hidden * 2
    assert ({"loss_chunk_positions": 64} in found.savers) == (chunk is None)
