"""Putting a LoRA on a model by PEFT: on the layers that were asked for, and no others.

Before it is done, it is done without weights, saved and read back as others read it (`planned_targets`): PEFT renames
tensors of a few families as it reads them, and layers that would not come back are left out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.utils.constants import DUMMY_TARGET_MODULES
from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names, one_line
from distillkit_builtin.local.lora.adapter_config import adapter_names
from distillkit_builtin.local.lora.idle_layers import ConfigKey, idle_layers, require_trained
from distillkit_builtin.local.lora.lora import ADAPTER, adapted_tensors
from distillkit_builtin.local.lora.lora_targets import OTHERWISE, LoraTargets, find_targets
from distillkit_builtin.local.lora.named_layers import name_in_layer
from distillkit_builtin.local.model_files.model_class import empty_model
from distillkit_builtin.local.model_files.quiet_loading import quiet_loading

NO_ROUND_TRIP = "PEFT would read their tensors back under other names"


class LayerOptions(TypedDict, total=False):
    """Which layers the user chose for a LoRA."""

    target_modules: tuple[str, ...] | None
    experts: bool


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """What the user chose of a new LoRA."""

    rank: int
    alpha: int
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None
    """None: all linear layers of the text decoder but the head."""
    experts: bool = False


def put_lora(model: PreTrainedModel, options: LoraOptions) -> PeftModel:
    """Put a new LoRA on `model`.

    Raises:
        InputError: if an option names what cannot be adapted, or PEFT puts the LoRA on other layers.
    """
    targets = planned_targets(model.config, options.target_modules, experts=options.experts)
    adapted = _put(model, targets, options)
    require_trained(
        model,
        targets.linears,
        lambda names, why: f"{type(model).__name__}, {names}: {why}; name others (student.target_modules)",
    )
    return adapted


def _put(model: PreTrainedModel, targets: LoraTargets, options: LoraOptions) -> PeftModel:
    names = adapter_names(model, targets)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=names.target_modules,
        target_parameters=names.target_parameters or None,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = place(model, config, options.dropout)
    except (ValueError, TypeError, NotImplementedError) as error:  # what PEFT raises of a layer
        raise InputError(f"no LoRA can be put on {type(model).__name__}: {one_line(error)}; {OTHERWISE}") from error
    _require_placed(model, targets)
    return adapted


def place(model: PreTrainedModel, config: LoraConfig, dropout: float) -> PeftModel:
    """A LoRA by PEFT's config, in float32, in which every linear layer has a plain one.

    For a linear layer whose weight is named in `target_parameters` PEFT would add `B A` to the weight at each call. It
    computes and stores the same as a plain LoRA, and such a one takes its place: fewer operations, and on a layer in
    few bits the only one that can be computed.
    """
    config.lora_dropout = 0.0  # PEFT refuses it beside target_parameters
    named = config.target_modules
    if not named:
        config.target_modules = DUMMY_TARGET_MODULES
    adapted: PeftModel = get_peft_model(model, config)
    config.target_modules = named
    for name, wrapper in list(model.named_modules()):
        if isinstance(wrapper, ParamWrapper) and _is_on_linear_weight(wrapper):
            _make_plain(adapted, config, name, wrapper)
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper) and dropout:
            layer.lora_dropout[ADAPTER] = nn.Dropout(dropout)
    if not config.target_parameters:  # with which PEFT would refuse to read the adapter back
        config.lora_dropout = dropout
    for key in ("target_modules", "target_parameters"):  # which PEFT keeps as sets, in any order
        names = getattr(config, key)
        if isinstance(names, set):
            setattr(config, key, sorted(names))
    return adapted


def _is_on_linear_weight(wrapper: ParamWrapper) -> bool:
    return wrapper.parameter_name == "weight" and isinstance(wrapper.base_layer, nn.Linear)


def _make_plain(adapted: PeftModel, config: LoraConfig, name: str, wrapper: ParamWrapper) -> None:
    """Put a plain LoRA in the wrapper's place, with that one's numbers where it has the right ones."""
    parent_name, _, leaf = name.rpartition(".")
    parent = adapted.get_base_model().get_submodule(parent_name)
    base = wrapper.base_layer
    setattr(parent, leaf, base)
    tuner: Any = adapted.base_model
    tuner._create_and_replace(config, ADAPTER, base, leaf, parent, current_key=name)
    plain = getattr(parent, leaf)
    for part in (plain.lora_A[ADAPTER], plain.lora_B[ADAPTER]):
        part.float()


def _require_placed(model: nn.Module, targets: LoraTargets) -> None:
    """Raise InputError unless the LoRA is on the layers that were asked for, and on no others."""
    found, asked = set(adapted_tensors(model)), {*(f"{name}.weight" for name in targets.linears), *targets.experts}
    if found != asked:
        different = ", ".join(sorted(found ^ asked)[:3])
        raise InputError(
            f"PEFT puts the LoRA on {len(found - asked)} layers too many and {len(asked - found)} too few "
            f"({different}); name some layers (student.target_modules), and please report the architecture"
        )


def planned_targets(
    config: PreTrainedConfig, target_modules: Sequence[str] | None = None, *, experts: bool = False
) -> LoraTargets:
    """The layers of a model of this config that a new LoRA is put on; those that PEFT would lose are left out.

    Raises:
        InputError: as `find_targets`, or if a layer would be lost that the user named.
    """
    named = None if target_modules is None else tuple(target_modules)
    return _planned(ConfigKey(config), named, experts)


@lru_cache(maxsize=32)
def _planned(key: ConfigKey, target_modules: tuple[str, ...] | None, experts: bool) -> LoraTargets:
    with quiet_loading():
        model = empty_model(key.config)
    targets = find_targets(model, target_modules, experts=experts)
    if not targets.linears:
        raise InputError(f"{type(model).__name__} has no linear layers that a LoRA can be put on; {OTHERWISE}")
    targets = _without_idle(model, targets, idle_layers(key.config) or {}, named=target_modules is not None)
    lost = _lost(key.config, targets)
    if lost and target_modules is not None:
        raise InputError(
            f"student.target_modules: {NO_ROUND_TRIP} ({sorted(lost)[0]}, ...), so they cannot be adapted; name others"
        )
    if lost & set(targets.experts):
        raise InputError(f"student.experts: {NO_ROUND_TRIP} ({sorted(lost)[0]}, ...); take false")
    if not lost:
        return targets
    kept = targets.without(model, lost, NO_ROUND_TRIP)
    if not kept.linears or _lost(key.config, kept):
        raise InputError(f"no LoRA can be put on {type(model).__name__}: {NO_ROUND_TRIP}; {OTHERWISE}")
    return kept


def _without_idle(model: PreTrainedModel, targets: LoraTargets, idle: Mapping[str, str], *, named: bool) -> LoraTargets:
    """The targets without layers that a LoRA would not be trained on. Raises InputError if they are `named`."""
    wrong = [name for name in targets.linears if name in idle]
    if wrong and named:
        raise InputError(f"student.target_modules: {first_names(wrong)}: {idle[wrong[0]]}; name others")
    stuck = [name for name in targets.experts if name in idle]
    if stuck:
        raise InputError(f"student.experts: {first_names(stuck)}: {idle[stuck[0]]}; take false")
    for why in dict.fromkeys(idle[name] for name in wrong):
        targets = targets.without(model, [name for name in wrong if idle[name] == why], why)
    if not targets.linears:
        raise InputError(f"no LoRA can be put on {type(model).__name__}: {idle[wrong[0]]}; {OTHERWISE}")
    return targets


def _lost(config: PreTrainedConfig, targets: LoraTargets) -> set[str]:
    """Those of the layers whose tensors PEFT, as it reads them back, takes for others: tried without data."""
    with torch.device("meta"), quiet_loading():
        model = empty_model(config)
        adapted = _put(model, targets, LoraOptions(rank=1, alpha=1))
    saved = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    marked = {
        name: torch.tensor(float(i), device="cpu").expand(tensor.shape)
        for i, (name, tensor) in enumerate(saved.items())
    }
    if _come_back(adapted, marked):
        return set()
    groups: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)  # of all decoder layers, as they are called alike
    for name, mark in marked.items():
        groups[name_in_layer(_layer_of(name))][name] = mark
    fit = {name for name, stored in groups.items() if _come_back(adapted, stored)}
    lost = [tensor for tensor, layer in adapted_tensors(model).items() if name_in_layer(layer) not in fit]
    return {tensor if tensor in targets.experts else tensor.removesuffix(".weight") for tensor in lost}


def _layer_of(stored: str) -> str:
    """The layer that a stored tensor of an adapter belongs to."""
    return stored.removeprefix("base_model.model.").rpartition(".lora_")[0]


def _come_back(adapted: PeftModel, stored: Mapping[str, Tensor]) -> bool:
    """Whether PEFT takes the stored tensors of layers for what they are."""
    try:
        read = convert_peft_adapter_state_dict_for_transformers(
            adapted, adapted.peft_config[ADAPTER], dict(stored), adapter_name=ADAPTER
        )
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError):  # it takes them for parts of experts
        return False
    return read.keys() == stored.keys() and all(torch.equal(read[name], mark) for name, mark in stored.items())
