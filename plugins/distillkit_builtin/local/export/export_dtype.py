"""The number format of whole models that are written: float32 as they were trained, or as their base model has it."""

import json
from pathlib import Path

import torch
from torch import Tensor

from distillkit.errors import InputError
from distillkit_builtin.local.model.load_weights import loaded_formats
from distillkit_builtin.local.model_files.checkpoint_fit import FLOATS
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.local.model_files.weight_files import model_files, stored_tensors
from distillkit_builtin.local.option_types import ExportDType


def written_dtype(chosen: ExportDType | None, default: ExportDType, base: str) -> torch.dtype:
    """What `student.export_dtype` asks for, of a model whose base is `base`."""
    return torch.float32 if (chosen or default) == "float32" else base_dtype(base)


def base_dtype(base: str) -> torch.dtype:
    """The format of a model's weights: as its config says, else as its largest weight is stored."""
    declared = getattr(read_config(base), "dtype", None)
    if isinstance(declared, torch.dtype):
        return declared
    stored = stored_tensors(model_files(base) or ()).values()
    sizes = [(torch.Size(tensor.shape).numel(), FLOATS[tensor.format]) for tensor in stored if tensor.format in FLOATS]
    return max(sizes, key=lambda size: size[0], default=(0, torch.float32))[1]


def in_formats_of(base: str, weights: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Float32 weights in the formats in which `base` is loaded as `dtype`: some tensors are float32 always.

    Raises InputError for a weight that `dtype` cannot hold.
    """
    if dtype == torch.float32:
        return weights
    formats = loaded_formats(base, dtype)
    rounded = {name: weight.to(formats.get(name, weight.dtype)) for name, weight in weights.items()}
    for name, weight in rounded.items():
        if not weight.isfinite().all():
            raise InputError(
                f"student.export_dtype: base: the weight {name} holds numbers beyond those of {dtype}, in which the "
                "base model is; take float32"
            )
    return rounded


def say_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Let the config of a written model say that its weights are `dtype`: loaded by itself it says what it was."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
