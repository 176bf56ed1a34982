"""What `check` expects of packing is what the proof finds, where the config and the layers show it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.model_families import random_model

from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.memory.packing_expected import packs
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.packing.packing_proof import require_packable

FAMILIES: Mapping[str, dict[str, Any]] = {
    "llama": {}, "qwen3_moe": {"moe_intermediate_size": 16}, "gpt2": {}, "olmo2": {}, "mistral": {"sliding_window": 12},
    "gemma2": {}, "gpt_oss": {}, "bloom": {"n_head": 4}, "stablelm": {}, "diffllama": {}, "mamba": {},
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_expected_to_pack_if_it_is_proved_to(name: str, tmp_path: Path) -> None:
    model = random_model(name, **FAMILIES[name])
    model.save_pretrained(tmp_path)
    try:
        require_packable(CausalLM(model, Device(torch.device("cpu")), torch.float32))
        proved = True
    except UnsupportedModelError:
        proved = False
    size = footprint(str(tmp_path), torch.device("cpu"), "float32")
    assert packs(str(tmp_path), size, "auto") == proved
    assert not packs(str(tmp_path), size, "plain")


def test_a_card_packs_in_bfloat16_alone(tmp_path: Path) -> None:
    random_model("llama").save_pretrained(tmp_path)
    for dtype, expected in (("bfloat16", True), ("float32", False), ("float16", False)):
        size = footprint(str(tmp_path), torch.device("cuda"), dtype)
        assert packs(str(tmp_path), size, "auto") == expected
