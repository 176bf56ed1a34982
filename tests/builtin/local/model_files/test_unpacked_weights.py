"""Weights that are unpacked while they are read: of FP8, MXFP4, compressed-tensors, torchao."""

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.quantized_checkpoints import (
    Checkpoint,
    change_stored,
    compressed,
    write_compressed,
    write_fp8,
    write_mxfp4,
    write_torchao,
)
from peft import PeftModel
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from typer.testing import CliRunner

import distillkit
from distillkit import InputError, RunConfig
from distillkit.arrays import token_ids
from distillkit.cli.main import app
from distillkit.testing import make_context
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.model.load_weights import load_weights
from distillkit_builtin.local.model_files.stored_quantization import quantization_in, to_load, unpacked, unpacked_method
from distillkit_builtin.local.model_files.unpacked_weights import require_one_scheme
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.model_source import resolve_model

pytestmark = pytest.mark.filterwarnings("ignore")
Make = Callable[..., RunConfig]
WRITERS: Mapping[str, Callable[[Path], Checkpoint]] = {
    "fp8, blocks of 128": write_fp8,
    "fp8, partial blocks": lambda folder: write_fp8(folder, intermediate_size=192),
    "fp8, blocks that do not divide": lambda folder: write_fp8(folder, intermediate_size=320),
    "fp8, a scale a weight": lambda folder: write_fp8(folder, None),
    "fp8, experts": lambda folder: write_fp8(folder, kind="qwen3_moe", moe_intermediate_size=128),
    "mxfp4": write_mxfp4,
    "compressed-tensors, w4a16": lambda folder: write_compressed(folder, "pack-quantized"),
    "compressed-tensors, fp8": lambda folder: write_compressed(folder, "float-quantized"),
    "compressed-tensors, w8a8": lambda folder: write_compressed(folder, "int-quantized"),
    "torchao, int8": lambda folder: write_torchao(folder, "Int8WeightOnlyConfig"),
    "torchao, fp8": lambda folder: write_torchao(folder, "Float8WeightOnlyConfig"),
}
NEEDS = {"compressed-tensors": "compressed_tensors", "torchao": "torchao"}


def write(kind: str, folder: Path) -> Checkpoint:
    package = NEEDS.get(kind.partition(",")[0])
    if package is not None and find_spec(package) is None:
        pytest.skip(f"needs {package}")
    return WRITERS[kind](folder)


def load(source: str, dtype: torch.dtype = torch.float32) -> CausalLM:
    return CausalLM.load(source, Device(torch.device("cpu")), dtype, dtype)


@torch.no_grad()
def logprobs(model: PreTrainedModel | CausalLM) -> Tensor:
    ids = np.random.default_rng(0).integers(5, 250, 24)
    inner = model if isinstance(model, CausalLM) else CausalLM(model, Device(torch.device("cpu")), torch.float32)
    return inner.response_logprobs([PromptAndResponse(token_ids(ids[:9]), token_ids(ids[9:]))])


def plain(source: str | Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    return model


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_computed_is_what_the_bits_stand_for(kind: str, tmp_path: Path) -> None:
    checkpoint = write(kind, tmp_path)
    ours, reference = load(checkpoint.packed), plain(checkpoint.plain)
    torch.testing.assert_close(logprobs(ours), logprobs(reference), atol=1e-4, rtol=1e-4)
    theirs = reference.state_dict()
    for name, weight in ours.model.state_dict().items():
        assert type(weight) is Tensor
        torch.testing.assert_close(weight, theirs[name], atol=1e-6, rtol=1e-6)
    assert getattr(ours.model.config, "quantization_config", None) is None


@pytest.mark.parametrize("kind", ["fp8, blocks of 128", "mxfp4", "compressed-tensors, w4a16", "torchao, int8"])
def test_in_bfloat16_each_weight_is_rounded_once(kind: str, tmp_path: Path) -> None:
    checkpoint = write(kind, tmp_path)
    theirs = plain(checkpoint.plain).state_dict()
    for name, weight in load_weights(resolve_model(checkpoint.packed), torch.bfloat16).state_dict().items():
        if weight.dtype == torch.bfloat16:  # some are float32 always
            torch.testing.assert_close(weight, theirs[name].to(torch.bfloat16), atol=0, rtol=2**-7)


@pytest.mark.parametrize("kind", ["fp8, blocks of 128", "fp8, experts", "mxfp4", "torchao, int8"])
def test_a_lora_on_it_samples_what_it_trains(kind: str, tmp_path: Path) -> None:
    causal_lm = load(write(kind, tmp_path).packed)
    before = logprobs(causal_lm)
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    copied = SamplingCopy(causal_lm)
    with torch.no_grad():
        for index, parameter in enumerate(policy.trained.values()):
            parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(index))
    torch.testing.assert_close(logprobs(copied.causal_lm), before, atol=1e-4, rtol=1e-4)
    copied.refresh()
    trained = logprobs(causal_lm)
    torch.testing.assert_close(logprobs(copied.causal_lm), trained, atol=1e-3, rtol=1e-3)
    assert (trained - before).abs().max() > 0.05
    with causal_lm.without_adapter():
        torch.testing.assert_close(logprobs(causal_lm), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fp8, blocks of 128", "mxfp4"])
def test_a_run_with_a_lora_on_it_and_what_it_writes(kind: str, local_config: Make, tmp_path: Path) -> None:
    checkpoint = write(kind, tmp_path / "model")
    student = {"model": checkpoint.packed, "lora_rank": 4, "learning_rate": 0.05}
    result = distillkit.run(local_config(student=student, train={"max_steps": 2}))
    adapter = result.adapter_path
    assert "not what was trained" not in (adapter / "README.md").read_text()
    done = CliRunner().invoke(app, ["export", str(result.run_dir), "--merge", str(tmp_path / "merged")])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    expected = logprobs(PeftModel.from_pretrained(plain(checkpoint.plain), adapter).merge_and_unload())
    torch.testing.assert_close(logprobs(load(str(tmp_path / "merged"))), expected, atol=0.3, rtol=0.1)
    assert (logprobs(plain(checkpoint.plain)) - expected).abs().max() > 0.5
    named = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == checkpoint.packed
    torch.testing.assert_close(logprobs(load(str(adapter))), expected, atol=1e-3, rtol=1e-3)  # as a teacher would be


@pytest.mark.parametrize("kind", ["fp8, experts", "mxfp4"])
@pytest.mark.parametrize("export_dtype", ["float32", "base"])
def test_all_weights_of_it_can_be_trained(kind: str, export_dtype: str, local_config: Make, tmp_path: Path) -> None:
    checkpoint = write(kind, tmp_path / "model")
    options = {"lora_rank": 0, "learning_rate": 0.001, "export_dtype": export_dtype}
    result = distillkit.run(local_config(student={"model": checkpoint.packed, **options}, train={"max_steps": 1}))
    path = result.adapter_path
    assert "not what was trained" not in (path / "README.md").read_text()
    assert "quantization_config" not in json.loads((path / "config.json").read_text())
    moved = (logprobs(plain(path)) - logprobs(plain(checkpoint.plain))).abs().max()
    assert 0.001 < moved < 3


def test_check_says_what_is_unpacked_and_counts_it_as_it_is_computed(tmp_path: Path) -> None:
    checkpoint = write_fp8(tmp_path)
    (note, *_) = LocalStudent(model=checkpoint.packed, device="cpu", dtype="bfloat16").check(make_context()).notes
    assert note.endswith("as bfloat16 on cpu, unpacked from fp8")
    sizes = [footprint(each, torch.device("cpu"), "bfloat16") for each in (checkpoint.packed, checkpoint.plain)]
    assert sizes[0].weight_bytes == sizes[1].weight_bytes == 2 * sizes[0].structure.parameters


def check(source: str) -> None:
    LocalStudent(model=source, device="cpu").check(make_context())


@pytest.mark.parametrize("rename", [lambda name: None, lambda name: name.replace("weight_scale_inv", "weight_scale")])
def test_fp8_without_scales_that_are_known(rename: Callable[[str], str | None], tmp_path: Path) -> None:
    checkpoint = write_fp8(tmp_path)
    change_stored(checkpoint.packed, lambda name, tensor: ((rename(name) if "scale_inv" in name else name), tensor))
    with pytest.raises(InputError, match=r"14 of its weights have no scales that transformers knows") as raised:
        check(checkpoint.packed)
    assert len(str(raised.value)) < 400


def test_a_weight_that_is_missing_is_found_before_it_is_read(tmp_path: Path) -> None:
    checkpoint = write_fp8(tmp_path)
    change_stored(checkpoint.packed, lambda name, tensor: (None if "1.mlp.up_proj" in name else name, tensor))
    with pytest.raises(InputError, match=r"1 tensors are missing \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        check(checkpoint.packed)


def test_a_quantization_that_stands_in_the_text_part_alone(tmp_path: Path) -> None:

    config = AutoConfig.for_model("gemma3")
    config.text_config.quantization_config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert unpacked_method(config) == "fp8"
    assert to_load(config).quantization_config["dequantize"] is True
    assert getattr(to_load(config).text_config, "quantization_config", None) is None
    assert quantization_in(unpacked(config)) is None
    assert unpacked_method(config) == "fp8"  # others read it too


LINEAR: Mapping[str, Any] = compressed("float-quantized")["config_groups"]["group_0"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config_groups": {"a": LINEAR, "b": {**LINEAR, "weights": {"num_bits": 4}}}}, "in several ways"),
        ({"transform_config": {"config_groups": {"r1": {}}}}, "with transforms of its activations"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, r"with sparse weights \(sparse-24-bitmask\)"),
    ],
)
def test_compressed_tensors_of_which_transformers_would_leave_something_out(
    change: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        require_one_scheme("base", {**compressed("float-quantized"), **change})
    assert len(str(raised.value)) <= 300
    require_one_scheme("base", compressed("float-quantized"))
    experts = {**LINEAR, "targets": ["re:.*experts.*"], "weights": {"num_bits": 4}}
    require_one_scheme("base", {"config_groups": {"a": LINEAR, "b": experts}})
