"""What reading prompts takes, tensor by tensor: one layer's at a time, and no more than `check` reckons."""

from pathlib import Path

import numpy as np
import torch
from helpers import tiny_models
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from distillkit.arrays import token_ids
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.decoder import Decoder
from distillkit_builtin.local.fast.prefill_scoring import prefill_response_states
from distillkit_builtin.local.memory.allocation_meter import AllocationMeter
from distillkit_builtin.local.memory.inference_sizes import sampling_bytes
from distillkit_builtin.local.memory.work import Work
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import footprint
from distillkit_builtin.local.sampling.known_ids import KnownIds

PROMPTS, LENGTH, NEW = 8, 64, 16


def write_model(folder: Path, layers: int) -> str:
    """One whose queries are much wider than its keys, which lie beside them in memory."""
    wide = {"num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 32, "num_hidden_layers": layers}
    Qwen3ForCausalLM(Qwen3Config(**{**tiny_models.SMALL, **wide})).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_models.write_model(folder / "other")).save_pretrained(folder)
    return str(folder)


def backbone_of(model: str) -> FastBackbone:
    return FastBackbone(CausalLM.load(model, Device(torch.device("cpu")), torch.float32, torch.float32))


def prompts() -> list[np.ndarray]:
    return [np.arange(3 + i, 3 + i + LENGTH) % 90 + 3 for i in range(PROMPTS)]


@torch.inference_mode()
def read_prompts(model: str) -> int:
    """Bytes at the peak besides the slots."""
    backbone, params = backbone_of(model), SamplingParams(max_tokens=NEW)
    known = KnownIds.of(HFTokenizer.load(model))
    decoder = Decoder.allocate(backbone, (1,), PROMPTS, LENGTH + NEW, NEW, known=known)
    requests = [SampleRequest(SampleKey(f"{i}", 0, 0), token_ids(ids), i, params) for i, ids in enumerate(prompts())]
    with AllocationMeter() as meter:
        for tensor in (*decoder.slots.keys, *decoder.slots.values):
            meter.ignore(tensor)
        decoder.admit(range(PROMPTS), requests)
    return int(meter.peak)


def test_prompts_that_are_sampled_from_take_one_layer_at_a_time_as_is_reckoned(tmp_path: Path) -> None:
    shallow, deep = (write_model(tmp_path / str(layers), layers) for layers in (2, 12))
    held = read_prompts(deep)
    assert held < 1.02 * read_prompts(shallow)
    size = footprint(deep, torch.device("cpu"), "float32")
    reckoned = sampling_bytes(size, Work(PROMPTS, PROMPTS, 0, LENGTH, NEW), PROMPTS, 0, fast=True)
    assert 0.85 * held <= reckoned <= 1.6 * held


@torch.inference_mode()
def test_a_prompt_of_several_scored_responses_is_kept_without_its_queries(tmp_path: Path) -> None:
    layers = 12
    backbone = backbone_of(write_model(tmp_path, layers))
    items = [PromptAndResponse(ids, np.arange(5, 9)) for ids in prompts() for _ in range(4)]
    with AllocationMeter() as meter:
        prefill_response_states(backbone, items, 0)
    kept = 4 * layers * PROMPTS * LENGTH * 2 * backbone.kv_heads * backbone.head_dim
    queries = 4 * layers * PROMPTS * LENGTH * backbone.heads * backbone.head_dim
    assert kept < meter.peak < kept + queries / 2
