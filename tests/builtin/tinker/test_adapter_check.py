"""Adapters as servers give them, which PEFT loads whole or which are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("peft")

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from distillkit.errors import InputError
from distillkit_builtin.tinker.adapter_check import complete_adapter

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


def archive(folder: Path, base: str, change: Change = dict) -> Path:
    """An adapter on every linear layer, as SkyRL writes it: its config names no layers."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(str(folder))
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"target_modules": None, "task_type": None, "base_model_name_or_path": "elsewhere"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return folder


def logits(base: str, folder: Path) -> torch.Tensor:
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))
    found: torch.Tensor = model(input_ids=torch.arange(1, 9)[None]).logits
    return found.detach()


def test_what_peft_would_load_a_part_of_is_loaded_whole(tmp_path: Path, tiny_model: str) -> None:
    folder = archive(tmp_path / "a", tiny_model)
    part = logits(tiny_model, folder)  # without a word
    complete_adapter(folder, tiny_model)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == str(Path(tiny_model).resolve())
    assert not torch.allclose(logits(tiny_model, folder), part, atol=1e-2)


def test_layers_that_share_a_short_name_are_named_in_full(tmp_path: Path, tiny_model: str) -> None:
    def without_first_up(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: each for name, each in tensors.items() if "layers.0.mlp.up_proj" not in name}

    folder = archive(tmp_path / "a", tiny_model, without_first_up)
    complete_adapter(folder, tiny_model)
    named = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert "model.layers.1.mlp.up_proj" in named
    assert "model.layers.0.mlp.up_proj" not in named
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), str(folder))
    held = sum("lora_" in name for name, _ in model.named_parameters())
    assert held == len(load_file(folder / "adapter_model.safetensors"))


def test_tensors_by_other_names_are_refused(tmp_path: Path, tiny_model: str) -> None:
    def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name.replace("lora_A.weight", "w1"): each for name, each in tensors.items()}

    with pytest.raises(InputError, match="are not named as PEFT's"):
        complete_adapter(archive(tmp_path / "a", tiny_model, renamed), tiny_model)


def test_tensors_of_another_model_are_refused(tmp_path: Path, tiny_model: str) -> None:
    def deeper(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return tensors | {name.replace("layers.0", "layers.9"): each.clone() for name, each in tensors.items()}

    with pytest.raises(InputError, match="fits nothing in the model"):
        complete_adapter(archive(tmp_path / "a", tiny_model, deeper), tiny_model)


def test_half_of_a_layer_is_refused(tmp_path: Path, tiny_model: str) -> None:
    def half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: each for name, each in tensors.items() if "layers.0.mlp.up_proj.lora_B" not in name}

    with pytest.raises(InputError, match="is not in the adapter's file"):
        complete_adapter(archive(tmp_path / "a", tiny_model, half), tiny_model)
