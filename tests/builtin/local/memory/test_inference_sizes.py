"""What a token's experts take while it is computed, and what the plain path keeps from one sampling to the next."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.model_families import random_model
from transformers import AutoConfig

from distillkit_builtin.local.batches.cached_rows import CachedRows
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder
from distillkit_builtin.local.memory.inference_sizes import (
    keeps_slots,
    routed_numbers,
    sampling_bytes,
    slot_bytes,
)
from distillkit_builtin.local.memory.work import Work
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.footprint import footprint


@pytest.mark.parametrize(
    ("kind", "over", "width"),
    [
        ("qwen3_moe", {"moe_intermediate_size": 48}, 48),
        ("mixtral", {"intermediate_size": 96}, 96),
        ("ernie4_5_vl_moe_text", {"moe_intermediate_size": [48, 24], "moe_k": 2}, 48),  # of text, of pictures
    ],
)
def test_experts_of_any_family_are_counted_by_the_widest(kind: str, over: dict[str, Any], width: int) -> None:
    config = AutoConfig.for_model(kind, hidden_size=64, num_experts_per_tok=2, **over)
    assert routed_numbers(config) == 2 * (2 * 64 + 3 * width)


@torch.inference_mode()
def test_slots_of_the_plain_path_stay_on_cuda_and_are_what_recorded_steps_hold(tmp_path: Path) -> None:
    model, slots, work = random_model("gemma3_text", sliding_window=12), 6, Work(6, 6, 0, 20, 100)
    model.save_pretrained(tmp_path)
    size = footprint(str(tmp_path), torch.device("cuda"), "float32")
    assert keeps_slots(size, fast=False)
    assert not keeps_slots(footprint(str(tmp_path), torch.device("cpu"), "float32"), fast=False)
    causal_lm = CausalLM(model, Device(torch.device("cpu")), torch.float32)
    prompts, hidden = CachedRows.prefill(causal_lm, [np.arange(5, 5 + work.prompt)] * slots, left_padding=True)
    decoder = FixedDecoder(causal_lm, None)
    decoder.start(prompts, torch.arange(slots), work.new, causal_lm.head(hidden).shape[1])
    assert decoder.memory is not None
    kept = [each for layer in decoder.memory.layers for each in (layer.keys, layer.values) if each is not None]
    held = sum(each.nbytes for each in kept)
    assert held <= slot_bytes(size, work, slots) <= 1.1 * held
    logits = decoder.memory.tensors.logits.nbytes
    cached = slots * work.prompt * size.structure.cached * size.dtype.itemsize
    assert sampling_bytes(size, work, slots, 0, fast=False) > cached + logits
