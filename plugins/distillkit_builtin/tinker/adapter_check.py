"""Whether PEFT loads a downloaded adapter whole; what its config leaves out is written into it first.

SkyRL's archives say `target_modules: null`: PEFT takes a guess, puts the adapter on two kinds of layers, and drops the
other tensors without a word. So the layers are named from the file's own tensors, the adapter is read back onto the
base model on the meta device, and every tensor of the file is compared with what PEFT holds then.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import get_peft_model_state_dict
from torch import Tensor

from distillkit.errors import InputError
from distillkit.files.atomic import write_json
from distillkit_builtin.file_errors import first_names
from distillkit_builtin.local.lora.adapters import loaded_adapter, put_adapter, read_adapter
from distillkit_builtin.local.lora.lora import ADAPTER
from distillkit_builtin.local.model_files.model_class import empty_model
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.model_source import ADAPTER_CONFIG, BASE, read_adapter_config

TENSOR = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?:A|B|embedding_A|embedding_B)(?:\.weight)?")
"""As PEFT names a LoRA's tensors."""


def complete_adapter(folder: Path, base: str) -> None:
    """Write what PEFT needs into the adapter's config, and read the adapter back on `base`.

    Raises:
        InputError: if PEFT would not load every tensor of the file with the same values.
    """
    tensors = loaded_adapter(folder)
    layers = _layers(tensors)
    problems: list[str] = []
    for named in _ways_to_name(layers):
        _write_config(folder, base, named)
        try:
            _require_whole(folder, base, tensors)
        except InputError as error:
            problems.append(str(error))
            continue
        return
    raise InputError(problems[-1])


def _layers(tensors: dict[str, Tensor]) -> list[str]:
    found = {name: TENSOR.fullmatch(name) for name in tensors}
    strange = [name for name, match in found.items() if match is None]
    if strange or not found:
        raise InputError(f"the adapter's tensors are not named as PEFT's: {first_names(strange) or 'there are none'}")
    return sorted({match["layer"] for match in found.values() if match is not None})


def _ways_to_name(layers: Sequence[str]) -> Iterator[list[str]]:
    """Short, as servers want them; then in full, where a short name also fits layers that the file lacks."""
    yield sorted({layer.rpartition(".")[2] for layer in layers})
    yield list(layers)


def _write_config(folder: Path, base: str, layers: list[str]) -> None:
    config = read_adapter_config(folder)
    named = str(Path(base).resolve()) if Path(base).is_dir() else base
    config |= {BASE: named, "target_modules": layers, "task_type": "CAUSAL_LM", "inference_mode": True}
    write_json(folder / ADAPTER_CONFIG, json.loads(json.dumps(config)))


def _require_whole(folder: Path, base: str, tensors: dict[str, Tensor]) -> None:
    """Raise InputError unless PEFT, given the folder, holds exactly these tensors."""
    model = empty_model(read_config(base))
    model.name_or_path = base
    adapted = put_adapter(model, read_adapter(folder), tensors, folder, on_cpu=True)
    held = get_peft_model_state_dict(adapted, adapter_name=ADAPTER, save_embedding_layers=False)
    other = [name for name, tensor in tensors.items() if name not in held or not _same(held[name], tensor)]
    if other:
        raise InputError(f"PEFT does not hold what the file says: {first_names(other)}")


def _same(held: Tensor, stored: Tensor) -> bool:
    return held.shape == stored.shape and torch.equal(held.to(torch.float64), stored.to(torch.float64))
