"""Formats of exported weights that cannot hold what was trained."""

from pathlib import Path

import pytest
import torch
from helpers import tiny_models
from helpers.model_families import write_quantized
from transformers import AutoModelForCausalLM

from distillkit import InputError
from distillkit_builtin.local.student import LocalStudent


def test_weights_in_few_bits_take_no_lora_up(tmp_path: Path) -> None:
    student = LocalStudent(model=write_quantized(tmp_path, load_in_4bit=True))
    student.require_exportable(merged=False)
    with pytest.raises(InputError, match=r"cannot be merged into .*, whose weights are quantized: rounding the sum"):
        student.require_exportable(merged=True)
    LocalStudent(model=str(tmp_path / "whole")).require_exportable(merged=True)


def test_a_weight_beyond_the_bases_format_is_refused(tmp_path: Path) -> None:
    from distillkit_builtin.local.export.export_dtype import in_formats_of

    tiny_models.write_model(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path)
    large = {name: torch.full_like(tensor, 1e6) for name, tensor in base.state_dict().items()}
    with pytest.raises(
        InputError, match=r"export_dtype: base: the weight \S+ holds numbers beyond those of torch.float16"
    ):
        in_formats_of(str(tmp_path), large, torch.float16)
