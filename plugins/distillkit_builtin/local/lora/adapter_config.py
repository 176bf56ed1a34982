"""A LoRA's layers as PEFT's config names them: short where that is exact, and by names that PEFT does not rewrite.

PEFT rewrites names in `target_modules` for mixtures of experts whose weights it knows by other names (`gate_proj` of a
shared expert is taken for one of the experts'). It does not rewrite `target_parameters`: there the weights of those
layers are named, and what PEFT computes and stores for them is what it does for a layer. vLLM needs the key
`target_modules`, ignores `target_parameters`, and takes what an adapter is on from the names of its tensors, which are
the same in both cases; SGLang reads `target_parameters` for tensors of experts alone.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel

from distillkit_builtin.local.lora.lora_targets import LoraTargets
from distillkit_builtin.local.model_files.model_class import text_decoder

WEIGHT = ".weight"


@dataclass(frozen=True, slots=True)
class AdapterNames:
    """What stands in the config."""

    target_modules: list[str] | str
    """A list of ends of names, or an expression that whole names fit."""
    target_parameters: list[str]


def adapter_names(model: PreTrainedModel, targets: LoraTargets) -> AdapterNames:
    """How PEFT's config names exactly these layers of a model without adapters."""
    modules = [name for name, _ in model.named_modules() if name]
    tensors = [name for name, _ in model.named_parameters()]
    rewritten = {leaf for leaf in {_leaf(name) for name in targets.linears} if _is_rewritten(model, [leaf])}
    plain = [name for name in targets.linears if _leaf(name) not in rewritten]
    named = [name + WEIGHT for name in targets.linears if _leaf(name) in rewritten]
    layers: list[str] | str = _short_names(plain, modules)
    if not rewritten and not targets.experts and any("." in name for name in layers):
        layers = _expression(model, plain, modules) or layers
    return AdapterNames(layers, [*_short_names(named, tensors), *_short_names(targets.experts, tensors, shortest=2)])


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _is_rewritten(model: PreTrainedModel, named: list[str] | str) -> bool:
    """Whether PEFT makes something else of `named` as `target_modules`, by asking it."""
    config = LoraConfig(target_modules=named)
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # it wants other names beside it
        return True
    kept = config.target_modules == named if isinstance(named, str) else set(config.target_modules or ()) == set(named)
    return not kept or bool(config.target_parameters)


def _short_names(wanted: Sequence[str], all_names: Collection[str], shortest: int = 1) -> list[str]:
    """Ends of names that `wanted` have and no others, as short as they can be; whole names where there are none."""
    left, found = set(wanted), set[str]()
    for length in range(shortest, 4):
        chosen = _by_end(left, length)
        taken = _by_end(all_names, length)
        for end, names in chosen.items():
            inside = set(taken[end]) <= set(wanted)
            if inside and not any(part.isdigit() for part in end.split(".")[:-1]):
                found.add(end)
                left -= set(names)
    return sorted({*found, *left})


def _by_end(names: Collection[str], length: int) -> Mapping[str, list[str]]:
    """Names by their last parts, with the end of a tensor's name counted as one with the layer's."""
    ends: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        suffix = WEIGHT if name.endswith(WEIGHT) else ""
        parts = name.removesuffix(WEIGHT).split(".")
        ends[".".join(parts[-length:]) + suffix].append(name)
    return ends


def _expression(model: PreTrainedModel, wanted: Sequence[str], all_names: Collection[str]) -> str | None:
    """An expression for layers that are called as others outside of the text decoder are; None if none is exact.

    Of mixtures of experts PEFT makes a list of an expression, with names that also fit layers outside.
    """
    decoder = text_decoder(model)
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    inner = "|".join(sorted(re.escape(name) for name in _short_names(wanted, [n for n in all_names if _in(n, prefix)])))
    pattern = rf"{re.escape(prefix)}\.(.*\.)?({inner})" if prefix else rf"(.*\.)?({inner})"
    exact = {name for name in all_names if re.fullmatch(pattern, name)} == set(wanted)
    return pattern if exact and not _is_rewritten(model, pattern) else None


def _in(name: str, prefix: str) -> bool:
    return not prefix or name.startswith(f"{prefix}.")
