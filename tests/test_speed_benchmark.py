"""The benchmark of speed, tiny and on the CPU: its sides work, TRL is asked for what stands there, tables are whole."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.speed import ours, ours_sampling
from benchmarks.speed.device_memory import HeldMemory
from benchmarks.speed.inputs import write_inputs
from benchmarks.speed.processes import Processes
from benchmarks.speed.products import products
from benchmarks.speed.sampling import table_lines as sampling_table
from benchmarks.speed.sampling_sizes import SamplingSize, random_prompts
from benchmarks.speed.shapes import SHAPES
from benchmarks.speed.sides import STEPS
from benchmarks.speed.step_tables import table_lines
from benchmarks.speed.trl_settings import config_options, utilization
from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.fast.prefill_scoring import saves_enough
from distillkit_builtin.local.model.causal_lm import PromptAndResponse

TINY, H200 = SHAPES["tiny"], 141 * 2**30


def step_of(seconds: float, **others: Any) -> dict[str, Any]:
    return {"steps": [{"step": 9.0, "sample": 5.0}, {"step": seconds, "sample": seconds / 2}], "cpu_s": 1.0, **others}


@pytest.mark.slow
def test_steps_and_sampling_of_ours_are_measured(tmp_path: Path) -> None:
    shape = replace(TINY, prompts=2)
    inputs = write_inputs(tmp_path, shape, 2)
    measured = ours.measure(inputs, shape, 2, {}, tmp_path / "work")
    assert [sorted(step) for step in measured["steps"]] == [["sample", "score", "step", "sync", "train"]] * 2
    assert measured["peak_flops"] > 0
    size = SamplingSize(2, 4)
    sampled = ours_sampling.measure(inputs, shape, [size], 1, {})
    assert sampled["tokens_per_second"]["2x4"]["with logprobs"] > 0


@pytest.mark.parametrize("name", SHAPES)
def test_trl_takes_whole_steps_in_every_batch_that_is_tried(name: str) -> None:
    shape = SHAPES[name]
    for batch in shape.trl_batch:
        found = config_options(shape, 3, batch, Path("out"), {}, None)
        assert found["per_device_train_batch_size"] * found["gradient_accumulation_steps"] == shape.sequences
    with pytest.raises(ValueError, match="do not make"):
        config_options(shape, 3, shape.sequences * 2, Path("out"), {}, None)


def test_vllm_in_trl_gets_memory_for_all_sequences_and_what_is_said_wins() -> None:
    shape = SHAPES["lora"]
    options = STEPS["TRL with vLLM"].settings[0].options
    found = config_options(shape, 3, 64, Path("out"), options, H200)
    assert found["vllm_mode"] == "colocate"
    assert found["vllm_max_model_length"] >= shape.length
    weights, cache = 2 * shape.student.parameters, shape.sequences * shape.length * shape.student.cache_bytes
    given = found["vllm_gpu_memory_utilization"] * H200
    assert weights + cache + 5 * 2**30 < given < 1.2 * (weights + cache) + 8 * 2**30
    more = config_options(shape, 3, 64, Path("out"), {**options, "vllm_gpu_memory_utilization": 0.3}, H200)
    assert more["vllm_gpu_memory_utilization"] == 0.3
    assert "vllm_mode" not in config_options(shape, 3, 64, Path("out"), {}, H200)
    assert utilization(SHAPES["8b"].student, 512, 40_000, H200) == 0.92


def test_trl_itself_takes_these_settings(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="make bench installs it in an environment of its own")
    options = {**STEPS["TRL with vLLM"].settings[1].options}
    config = trl.DistillationConfig(**config_options(TINY, 2, 16, tmp_path, options, None))
    assert config.vllm_enable_sleep_mode
    assert config.max_completion_length == TINY.new_tokens


def test_parameters_are_those_of_the_published_models() -> None:
    assert SHAPES["main"].student.parameters == pytest.approx(0.596e9, rel=0.001)
    assert SHAPES["8b"].student.parameters == pytest.approx(8.19e9, rel=0.001)
    assert SHAPES["8b"].student.cache_bytes == 147_456


@pytest.mark.parametrize("name", ["main", "8b"])
def test_a_layers_products_are_all_its_weights_and_each_has_tiles_that_divide_it(name: str) -> None:
    model = SHAPES[name].student
    found = products(model)
    assert sum(product.outputs * product.inputs for product in found) * model.layers == model.layer_parameters
    assert all(product.fits(product.tiles) for product in found)


def test_a_lora_computes_two_thirds_of_what_training_all_weights_does_and_its_own() -> None:
    lora, main = SHAPES["lora"], SHAPES["main"]
    assert lora.training_flops_of_all_weights == main.training_flops
    assert 0.66 < lora.training_flops / main.training_flops < 0.75


def test_prompts_that_are_read_once_are_counted_once() -> None:
    lora, wide = SHAPES["lora"], SHAPES["wide"]
    assert wide.training_flops == pytest.approx(8 * lora.training_flops)
    assert wide.scoring_flops == pytest.approx(8 * lora.scoring_flops)  # on a GPU, where too little would be saved
    longer = replace(wide, prompt_tokens=384, new_tokens=128)
    assert longer.scoring_flops < 0.5 * replace(longer, prompts=512, completions=1).scoring_flops
    assert replace(wide, device="cpu").scoring_flops < 0.8 * wide.scoring_flops
    alone = replace(TINY, completions=1)
    assert TINY.training_flops < 2 * alone.training_flops


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("prompt", "new", "each"), [(128, 256, 1), (40, 360, 2), (128, 256, 8), (384, 128, 8)])
def test_what_scoring_computes_is_counted_as_it_decides(device: str, prompt: int, new: int, each: int) -> None:
    shape = replace(TINY, prompts=4, completions=each, prompt_tokens=prompt, new_tokens=new, device=device)
    items = [PromptAndResponse(np.full(prompt, i // each), np.arange(new)) for i in range(shape.sequences)]
    distinct = DistinctPrompts.of(item.prompt_ids for item in items).prompts
    once = saves_enough(items, distinct, 0, torch.device(device))
    assert (shape.scoring_flops < replace(shape, prompts=shape.sequences, completions=1).scoring_flops) is once


def test_the_8b_is_taught_by_its_own_files(tmp_path: Path) -> None:
    assert SHAPES["8b"].own_base
    inputs = write_inputs(tmp_path, replace(TINY, own_base=True), 1)
    assert inputs["teacher"] == inputs["student"]


def test_the_fastest_setting_is_shown_and_every_one_is_named() -> None:
    found = {
        "distillkit": {"": step_of(1.0, memory_gib=20.0, held_gib=24.5)},
        "TRL with vLLM": {"": step_of(3.0, batch=8), "asleep": step_of(2.5, batch=16)},
        "TRL": {"": {"error": "RuntimeError: no | memory"}},
    }
    lines = list(table_lines("lora", SHAPES["lora"], found))
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    assert "2.50 times as fast" in rows["TRL with vLLM"]
    assert "24.5 | 20.0" in rows["distillkit"]
    assert "no / memory" in rows["TRL"]
    assert len({line.count("|") for line in rows.values()}) == 1
    assert "- TRL with vLLM: a step 3.000 s, batches of 8 of 64, 2 steps" in lines
    assert "- TRL with vLLM, asleep: a step 2.500 s, batches of 16 of 64, 2 steps" in lines


def test_shares_of_the_peak_are_of_what_is_computed() -> None:
    shape = SHAPES["lora"]
    step = {"step": 3.0, "sample": 1.0, "score": 1.0, "train": 1.0}
    measured = {"steps": [step, step], "cpu_s": 1.0, "peak_flops": 2 * shape.training_flops}
    row = next(line for line in table_lines("lora", shape, {"distillkit": {"": measured}}) if "| distillkit" in line)
    of_all = shape.training_flops_of_all_weights / shape.training_flops / 2
    assert f"{shape.scoring_flops / shape.training_flops / 2:.0%}, 50% ({of_all:.0%})" in row


def test_sampling_is_beside_the_best_of_vllms_settings() -> None:
    speeds = [{"8x16": {"with logprobs": 10.0, "without logprobs": 40.0}}, {"8x16": {"with logprobs": 20.0}}]
    measured = {
        ("distillkit", ""): {"tokens_per_second": {"8x16": {"with logprobs": 60.0}}},
        ("vLLM", "one process"): {"tokens_per_second": speeds[0]},
        ("vLLM", "several processes"): {"tokens_per_second": speeds[1]},
    }
    lines = list(sampling_table([SamplingSize.parse("8x16")], TINY, measured))
    row = next(line for line in lines if line.startswith("| 8 x 16"))
    assert row == "| 8 x 16 | 60 | 20 (several processes) | 40 (one process) | 3.00 | 1.50 |"


def test_sizes_are_two_numbers_and_prompts_have_nothing_in_common() -> None:
    assert str(SamplingSize.parse("64x1900")) == "64x1900"
    for wrong in ("64", "0x3", "64 x 3"):
        with pytest.raises(ValueError, match="COMPLETIONSxTOKENS"):
            SamplingSize.parse(wrong)
    prompts = random_prompts(TINY, SamplingSize(4, 8))
    assert len({ids[0] for ids in prompts}) == 4
    assert {len(ids) for ids in prompts} == {TINY.prompt_tokens}


def test_held_memory_is_the_peak_above_what_was_held_before() -> None:
    seen = threading.Event()

    def read() -> float:
        if reads := next(readings, None):
            return reads
        seen.set()
        return 3.0

    readings = iter([2.0, 2.5, 9.5])  # the first is asked for whether a process before has let go
    with HeldMemory(read, 2.0) as held:
        assert seen.wait(10)
    assert held.gib == 7.5
    with HeldMemory(None, 0.0) as nothing:
        pass
    assert nothing.gib is None


def test_what_fails_takes_too_long_or_has_no_time_left_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(code: str, limit: float = 30.0, budget: float = float("inf")) -> dict[str, Any]:
        return Processes(tmp_path, limit, budget).measure("it", [sys.executable, "-c", code], {"HINT": "given"})

    wrote = "import sys, os, pathlib; pathlib.Path(sys.argv[2]).write_text('{\"hint\": \"%s\"}' % os.environ['HINT'])"
    assert run(wrote)["hint"] == "given"
    assert run("raise OSError('full')")["error"] == "OSError: full"
    assert run("raise OSError('core: see root cause above')")["error"].startswith("OSError")
    assert run("pass")["error"] == "no result"
    assert run("import time; time.sleep(60)", limit=0.3)["error"] == "over 0 s"
    assert run("pass", budget=1.0)["error"].startswith("left out")
    assert "OSError: full" in capsys.readouterr().err
