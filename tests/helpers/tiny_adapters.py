"""PEFT adapters of tiny models, with random tensors in the place of the zeros that PEFT begins with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

Tensors = dict[str, torch.Tensor]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "bias": {"bias": "all"},
    "some layers": {"target_modules": ["down_proj"], "layers_to_transform": [1]},
}
"""Options of adapters that PEFT can merge."""


def write_adapter(folder: Path, base: str, *, seed: int = 5, base_name: str | None = None, **options: Any) -> Path:
    """A LoRA of rank 4 on the model `base`, which it calls `base_name`."""
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**chosen))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.peft_config["default"].base_model_name_or_path = base_name or base
    model.save_pretrained(str(folder))
    return folder


def change_config(folder: Path, file: str = "adapter_config.json", **keys: Any) -> None:
    """Write keys into a config."""
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def change_tensors(folder: Path, change: Callable[[Tensors], Tensors], file: str = "adapter_model.safetensors") -> None:
    """Write what `change` makes of the tensors in a file."""
    changed = {name: tensor.contiguous() for name, tensor in change(load_file(folder / file)).items()}
    save_file(changed, folder / file, metadata={"format": "pt"})
