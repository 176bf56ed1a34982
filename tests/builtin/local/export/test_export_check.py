"""What is exported is read back, as PEFT and transformers read it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_models
from helpers.tiny_adapters import change_config, change_tensors
from transformers import AutoModelForCausalLM, LagunaConfig

import distillkit
from distillkit import RunConfig
from distillkit_builtin.local.export.export import write_weights
from distillkit_builtin.local.export.export_check import export_problem
from distillkit_builtin.local.lora import lora_placement
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy

Load = Callable[..., CausalLM]
LORA, WHOLE = "adapter_model.safetensors", "model.safetensors"


@pytest.fixture
def lora(load: Load, tiny_model: str) -> Policy:
    return Policy.lora(load(tiny_model), 4, 8, 0.0, 0)


def test_an_adapter_as_it_was_trained_is_no_problem(lora: Policy, tmp_path: Path) -> None:
    assert export_problem(lora, write_weights(lora, tmp_path), None) is None


def test_an_adapter_that_comes_back_as_another_is(lora: Policy, tmp_path: Path) -> None:
    path = write_weights(lora, tmp_path)
    kept = (path / LORA).read_bytes()
    change_tensors(path, lambda t: {name: x + ("0.mlp.up_proj.lora_A" in name) for name, x in t.items()})
    assert "1 tensors come back as others than they were: " in str(export_problem(lora, path, None))
    assert "layers.0.mlp.up_proj.lora_A" in str(export_problem(lora, path, None))
    change_tensors(path, lambda t: {name.replace("0.mlp.up", "0.mlp.down_up"): x for name, x in t.items()})
    assert "fits nothing in the model: " in str(export_problem(lora, path, None))
    (path / LORA).write_bytes(kept)
    change_config(path, r=2)
    assert "size mismatch" in str(export_problem(lora, path, None))


def test_so_is_a_whole_model(load: Load, tiny_model: str, tmp_path: Path) -> None:
    policy = Policy.full(load(tiny_model))
    whole = policy.whole_weights()
    path = write_weights(policy, tmp_path, whole)
    assert export_problem(policy, path, whole) is None
    change_tensors(path, lambda tensors: {name: x + ("0.mlp.up" in name) for name, x in tensors.items()}, WHOLE)
    assert "others than they were: model.layers.0.mlp.up_proj.weight" in str(export_problem(policy, path, whole))
    change_tensors(path, lambda tensors: {name: x for name, x in tensors.items() if "0.mlp.up" not in name}, WHOLE)
    assert "1 tensors are missing (model.layers.0.mlp.up_proj.weight)" in str(export_problem(policy, path, whole))


def test_a_run_says_where_peft_reads_its_adapter_as_another(
    local_config: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers renames this family's shared experts by a pattern that matches more than they are called.

    Without what finds that before training; no other test has a model of this size, whose layers are remembered.
    """
    monkeypatch.setattr(lora_placement, "_lost", lambda config, targets: set())
    torch.manual_seed(0)
    config = LagunaConfig(**tiny_models.SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
    folder = tmp_path / "laguna"
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_models.write_tokenizer(folder)
    result = distillkit.run(local_config(student={"model": str(folder)}, train={"max_steps": 1}))
    said = f"what others load from {result.adapter_path} is not what was trained: "
    assert said in (result.run_dir / "run.log").read_text()
    assert "shared_expert" in (result.adapter_path / "README.md").read_text()
    assert (result.adapter_path / LORA).is_file()
