"""An adapter in a directory that is trained on: a LoRA on linear layers, and on experts where that is asked for."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Unpack, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.tuners.lora import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor
from transformers import PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names
from distillkit_builtin.local.lora.adapters import put_adapter, read_adapter, stored_adapter
from distillkit_builtin.local.lora.decoder_layers import LayerKind, expert_parameters, linear_kinds
from distillkit_builtin.local.lora.idle_layers import require_trained
from distillkit_builtin.local.lora.lora import adapted_tensors, added_weights, is_on_linear
from distillkit_builtin.local.lora.lora_placement import LayerOptions, place, planned_targets
from distillkit_builtin.local.lora.lora_targets import LoraSize
from distillkit_builtin.local.model.footprint import model_on_meta
from distillkit_builtin.local.model_files.weight_files import adapter_file
from distillkit_builtin.local.options import LocalStudentOptions

INSTEAD = "such an adapter cannot be trained on; give it as student.model, which merges it, and train a new one"


def put_trainable(
    model: PreTrainedModel,
    folder: Path,
    tensors: Mapping[str, Tensor],
    dropout: float,
    **layers: Unpack[LayerOptions],
) -> PeftModel:
    """`model` with the LoRA of a directory on it, to be trained.

    Raises:
        InputError: if it does not fit, is more than a LoRA, or is on other layers than were chosen.
    """
    known = _Known(
        frozenset(expert_parameters(model)),
        frozenset(name for name, kind in linear_kinds(model).items() if kind in (LayerKind.HEAD, LayerKind.TOWER)),
        _chosen(model, layers.get("target_modules")),
    )

    def put(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
        return place(model, cast(LoraConfig, config), dropout)

    adapted = put_adapter(model, read_adapter(folder), tensors, folder, place=put)
    linears = _require_trainable(model, folder, known, experts=layers.get("experts", False))
    require_trained(
        model, linears, lambda names, why: f"the adapter in {folder} is also on {names}: {why}, and {INSTEAD}"
    )
    return adapted


def lora_size(options: LocalStudentOptions) -> LoraSize | None:
    """How much the LoRA of a student trains; None where all weights are trained.

    Raises:
        InputError: if no such LoRA can be put on the model.
    """
    target_modules, experts = options.layers()
    if options.adapter is not None:
        folder = Path(options.adapter).absolute()
        return _starting_size(options.model, folder, _written(folder), target_modules, experts)
    if not options.lora_rank:
        return None
    config = model_on_meta(options.model).config
    return planned_targets(config, target_modules, experts=experts).size(options.lora_rank)


def describe_layers(options: LocalStudentOptions) -> str | None:
    """What the LoRA of a student is on, for `distillkit check`; None where all weights are trained.

    Raises:
        InputError: if no such LoRA can be put on the model.
    """
    if options.adapter is not None:
        size = lora_size(options)
        return None if size is None else f"the LoRA of {options.adapter} has {size.trained:,} numbers"
    if not options.lora_rank:
        return None
    target_modules, experts = options.layers()
    config = model_on_meta(options.model).config
    return planned_targets(config, target_modules, experts=experts).describe(options.lora_rank)


def _written(folder: Path) -> int:
    """When the adapter's file was written, in nanoseconds: another one is another adapter."""
    return adapter_file(folder).stat().st_mtime_ns


@lru_cache(maxsize=16)
def _starting_size(
    source: str, folder: Path, written: int, target_modules: tuple[str, ...] | None, experts: bool
) -> LoraSize:
    model = model_on_meta(source)
    stored = stored_adapter(folder)
    with torch.device("meta"):
        put_trainable(model, folder, stored, 0.0, target_modules=target_modules, experts=experts)
    added = [(weight.base().numel(), weight.base().dim()) for weight in added_weights(model)]
    return LoraSize(
        trained=sum(tensor.numel() for tensor in stored.values()),
        linear_weights=sum(count for count, dimensions in added if dimensions == 2),
        expert_weights=sum(count for count, dimensions in added if dimensions == 3),
    )


class _Known:
    """What is known of a model before an adapter is on it."""

    def __init__(self, experts: frozenset[str], elsewhere: frozenset[str], chosen: frozenset[str] | None) -> None:
        self.experts = experts
        """Tensors of experts' weights."""
        self.elsewhere = elsewhere
        """Linear layers outside of the text decoder, and the head."""
        self.chosen = chosen
        """The layers that `target_modules` names; None: it names none."""


def _chosen(model: PreTrainedModel, target_modules: tuple[str, ...] | None) -> frozenset[str] | None:
    if target_modules is None:
        return None
    return frozenset(f"{name}.weight" for name in planned_targets(model.config, target_modules).linears)


def _require_trainable(model: PreTrainedModel, folder: Path, known: _Known, *, experts: bool) -> list[str]:
    """The linear layers that a LoRA was put on. Raises InputError if anything else was, but experts if so chosen."""
    adapted = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    ]
    tensors = {layer: tensor for tensor, layer in adapted_tensors(model).items()}
    on_experts = {
        name for name, module in adapted if isinstance(module, ParamWrapper) and tensors[name] in known.experts
    }
    wrong = [
        name for name, module in adapted if name in known.elsewhere or not (name in on_experts or is_on_linear(module))
    ]
    if wrong:
        raise InputError(
            f"the adapter in {folder} changes more than linear layers below the head ({first_names(wrong)}), and "
            f"{INSTEAD}"
        )
    if bool(on_experts) != experts:
        has = "adapts experts, and" if on_experts else "adapts no experts, and"
        raise InputError(
            f"student.experts is {str(experts).lower()}, and the adapter in {folder} {has} keeps its layers; take "
            f"student.experts: {str(bool(on_experts)).lower()}"
        )
    linears = {tensor for layer, tensor in tensors.items() if layer not in on_experts}
    if known.chosen is not None and known.chosen != linears:
        raise InputError(
            f"student.target_modules names other layers than the adapter in {folder} is on "
            f"({first_names(sorted(known.chosen ^ linears))}); leave it out: what is trained on keeps its layers"
        )
    return sorted(tensor.removesuffix(".weight") for tensor in linears)
