"""What the linear layers of a model are: the text decoder's own, experts, routers, heads, towers for other senses.

It is found by structure. A mixture of experts is a module with a child `experts`, or with one that holds all experts'
weights in tensors of three dimensions. A router is a sibling of the experts that gives a number for each of them (a few
families add some that do nothing), or one for the experts that every token passes; a sibling with an output as wide as
the model is a layer like any other.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distillkit_builtin.local.model_files.model_class import language_model, text_decoder, towers
from distillkit_builtin.local.model_files.quantization import holds_numbers


class LayerKind(StrEnum):
    """What a linear layer is; in the words of messages."""

    DECODER = "linear layers of the text decoder"
    EXPERT = "experts"
    ROUTER = "router"
    HEAD = "head"
    TOWER = "layers outside of the text decoder"
    OTHER = "layers that compute something else than a product"


def linear_kinds(model: PreTrainedModel) -> dict[str, LayerKind]:
    """What each linear layer of a model without adapters is, by name."""
    decoder, head = text_decoder(model), language_model(model).get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    prefix = names[id(decoder)]
    routers = {id(layer) for layer in _router_layers(model, decoder)}
    of_towers = {id(layer) for tower in towers(decoder) for layer in tower.modules()}
    kinds: dict[str, LayerKind] = {}
    for name, module in model.named_modules():
        if not is_linear(module):
            continue
        if module is head:
            kinds[name] = LayerKind.HEAD
        elif not f"{name}.".startswith(f"{prefix}." if prefix else "") or id(module) in of_towers:
            kinds[name] = LayerKind.TOWER
        elif id(module) in routers:
            kinds[name] = LayerKind.ROUTER
        elif "experts" in name.split("."):
            kinds[name] = LayerKind.EXPERT
        else:
            kinds[name] = LayerKind.DECODER if gives_its_product(module) else LayerKind.OTHER
    return kinds


def tower_names(model: PreTrainedModel, kinds: Mapping[str, LayerKind]) -> list[str]:
    """What the model has besides its text decoder: a vision tower, an audio tower.

    By what the towers say that they read, and by their layers' names: some say that they read text. `kinds` are those
    of the model's linear layers.
    """
    senses = set[str]()
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and "text" not in module.input_modalities:
            given = module.input_modalities
            senses.update([given] if isinstance(given, str) else given)
    names = [name for name, kind in kinds.items() if kind == LayerKind.TOWER]
    sees = senses & {"image", "video"} or any("vision" in name or "visual" in name for name in names)
    hears = "audio" in senses or any("audio" in name for name in names)
    return [name for name, has in (("vision tower", sees), ("audio tower", hears)) if has]


def expert_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The tensors [experts, ...] that hold the weights of all experts of a layer of the text decoder, by name."""
    decoder = text_decoder(model)
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    found = {}
    for name, module in decoder.named_modules():
        if _holds_experts(module):
            for own, parameter in module.named_parameters(recurse=False):
                if parameter.dim() == 3:
                    found[".".join(part for part in (prefix, name, own) if part)] = parameter
    return found


def has_experts(model: PreTrainedModel) -> bool:
    """Whether the text decoder is a mixture of experts."""
    return any(True for _ in _mixtures(text_decoder(model)))


def is_linear(module: nn.Module) -> bool:
    """Whether a module has the inputs and outputs of a linear layer, however it keeps its weight."""
    if isinstance(module, nn.Linear | Conv1D):
        return True
    sizes = [getattr(module, name, None) for name in ("in_features", "out_features")]
    return all(isinstance(size, int) for size in sizes) and not any(True for _ in module.children())


def linear_ends(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def gives_its_product(layer: nn.Module) -> bool:
    """Whether the layer gives one tensor, of as many numbers a token as it has outputs; False for routers that do more.

    A layer with a forward of its own is tried where that costs nothing and changes nothing: not if it is quantized.
    """
    if not isinstance(layer, nn.Linear) or type(layer).forward is nn.Linear.forward:
        return True
    weight = layer.weight
    if not holds_numbers(weight) or weight.shape != (layer.out_features, layer.in_features):
        return True
    try:
        with torch.no_grad():
            given = layer(torch.zeros(1, 1, layer.in_features, device=weight.device, dtype=weight.dtype))
    except (TypeError, RuntimeError, ValueError, IndexError):  # it reads something else
        return False
    return isinstance(given, Tensor) and given.shape == (1, 1, layer.out_features)


def _mixtures(decoder: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """Modules that choose among experts, and those of their children that hold the experts."""
    for module in decoder.modules():
        experts = [child for key, child in module.named_children() if key == "experts" or _holds_experts(child)]
        if experts:
            yield module, experts


def _holds_experts(module: nn.Module) -> bool:
    """Whether a module's own tensors are the weights of several experts."""
    if isinstance(module, _ConvNd) or not (hasattr(module, "num_experts") or "Expert" in type(module).__name__):
        return False
    return any(parameter.dim() == 3 and len(parameter) > 1 for parameter in module.parameters(recurse=False))


def _router_layers(model: PreTrainedModel, decoder: nn.Module) -> Iterator[nn.Module]:
    config = model.config.get_text_config()
    idle = {value for key, value in vars(config).items() if "expert" in key and type(value) is int}
    for mixture, experts in _mixtures(decoder):
        many = {count for each in experts for count in _counts(each)}
        deciding = {1, *many, *(count + more for count in many for more in {1, *idle})}
        for child in mixture.children():
            if child in experts:
                continue
            layers = [layer for layer in child.modules() if is_linear(layer)]
            outputs = {linear_ends(layer)[1] for layer in layers}
            if config.hidden_size not in outputs and outputs & deciding:
                yield from layers


def _counts(experts: nn.Module) -> Iterator[int]:
    """How many experts there are."""
    count = getattr(experts, "num_experts", None)
    if isinstance(count, int):
        yield count
    if isinstance(experts, nn.ModuleList):
        yield len(experts)
    yield from (len(parameter) for parameter in experts.parameters() if parameter.dim() == 3)
