"""Whether what was exported is what was trained: it is read back as PEFT and transformers read it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names
from distillkit_builtin.local.lora.adapters import loaded_adapter, put_adapter, read_adapter
from distillkit_builtin.local.model_files.checkpoint_fit import require_weights
from distillkit_builtin.local.model_files.model_class import empty_model
from distillkit_builtin.local.model_files.weight_files import model_files
from distillkit_builtin.local.training.policy import Policy


def export_problem(policy: Policy, path: Path, whole_weights: dict[str, Tensor] | None) -> str | None:
    """Why others will not load from `path` what was trained, with names; None if they will.

    An adapter is put onto the model by PEFT, on the meta device, where only the adapter has data. A whole model's files
    are compared tensor by tensor with `whole_weights`, and by name and shape with what transformers would load.
    """
    if policy.causal_lm.adapter is None:
        return model_problem(path, whole_weights or {})
    try:
        return _said_of(list(_different_layers(policy, path)))
    except InputError as error:
        return str(error)


def model_problem(path: Path, weights: Mapping[str, Tensor]) -> str | None:
    """The same of a whole model with these weights, by their names in the model."""
    try:
        require_weights(str(path))
        return _said_of(list(_different_weights(path, weights)))
    except InputError as error:
        return str(error)


def _said_of(different: list[str]) -> str | None:
    if not different:
        return None
    return f"{len(different)} tensors come back as others than they were: {first_names(different)}"


def _different_layers(policy: Policy, path: Path) -> Iterator[str]:
    """Names of the trained tensors that PEFT reads back with other values."""
    model = empty_model(policy.causal_lm.model.config)
    model.name_or_path = policy.causal_lm.model.name_or_path
    read = put_adapter(model, read_adapter(path), loaded_adapter(path), path, on_cpu=True)
    found = dict(read.named_parameters())
    for name, trained in policy.trained.items():
        if name not in found or not torch.equal(found[name], trained.cpu()):
            yield name


def _different_weights(path: Path, weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of a model's tensors that stand in its files with other values; some have other names there."""
    for file in model_files(str(path)) or ():
        with safe_open(file, "pt") as opened:
            for name in opened.keys() & weights.keys():
                if not torch.equal(opened.get_tensor(name), weights[name].cpu()):
                    yield name
