"""Layers on which a LoRA would train nothing: no gradient of the logits comes to what they give.

Mamba's `dt_proj` is one: the model multiplies by its weight past the layer. Those of an indexer are others: what they
give only chooses the tokens that are attended to. A LoRA there would never move, and merged it would be a change that
training does not see. They are found without data, by one forward pass on the meta device under autograd, in which a
number is added to what each layer gives; where a model cannot be computed there, such as one that asks how many tokens
come to an expert, by the model itself.

Decoding from a cache goes through the same layers: of 21 families, recurrent ones and mixtures among them, none reads a
weight past a layer there that a whole text goes through. So a copy that samples with adapters beside the layers, as on
bases in few bits, computes what is trained.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from types import MappingProxyType

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_names
from distillkit_builtin.local.lora.decoder_layers import LayerKind, expert_parameters, linear_kinds
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS, computable, empty_model, language_model
from distillkit_builtin.local.model_files.quiet_loading import quiet_loading

NOT_TRAINED = "so a LoRA there would not be trained"
READ_PAST = f"the model reads the weight past the layer, {NOT_TRAINED}"
NO_GRADIENT = f"no gradient comes back from what they give, {NOT_TRAINED}"
SHORT, LONG = 8, 256
"""Tokens of a text: of a short one, layers that sum up windows of tokens may give nothing.

Only if a layer is left of which that may be so, the long one is computed: recurrent layers take a step a token.
"""
_Call = Callable[[PreTrainedModel, Tensor], Tensor]
"""Logits [1, tokens, vocabulary] of ids [1, tokens]."""


class ConfigKey:
    """A config that equals another of the same values, as a key."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config = config
        self._text = f"{type(config).__name__} {config.to_json_string(use_diff=False)}"

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigKey) and other._text == self._text


def idle_layers(config: PreTrainedConfig) -> Mapping[str, str] | None:
    """Linear layers of the text decoder, and tensors of experts, that a LoRA would not be trained on, and why.

    By name, in a model of this config without adapters; None where that cannot be known without data.
    """
    return _idle_layers(ConfigKey(config))


@lru_cache(maxsize=32)
def _idle_layers(key: ConfigKey) -> Mapping[str, str] | None:
    with quiet_loading():
        model = empty_model(deepcopy(key.config)).eval()  # what is set below is set in its config
        with _given_up_without_values():
            model.set_attn_implementation("eager")
            model.set_experts_implementation("batched_mm")  # the one that never asks what its tensors hold
            for call in (_with_cache, _with_mask):
                with _given_up_without_values():
                    return MappingProxyType(_found_without_data(model, call))
    return None


@contextmanager
def _given_up_without_values() -> Iterator[None]:
    """Leaves the block where a model's own code runs into tensors that have no values."""
    try:
        yield
    except InputError:
        raise
    except MODEL_ERRORS:
        return


def _found_without_data(model: PreTrainedModel, call: _Call) -> dict[str, str]:
    linears = [name for name, kind in linear_kinds(model).items() if kind == LayerKind.DECODER]
    experts, weights = expert_parameters(model), {f"{name}.weight" for name in linears}
    tensors = {name: each for name, each in model.named_parameters(remove_duplicate=False) if name in weights} | experts
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in tensors and parameter.is_floating_point())
    reached = _reached(model, linears, tensors, call, SHORT)
    past = {name for name in linears if name not in reached and f"{name}.weight" in reached}
    wanted = {*linears, *experts} - past
    if wanted - reached:
        reached |= _reached(model, linears, tensors, call, LONG)
    return {**dict.fromkeys(sorted(past), READ_PAST), **dict.fromkeys(sorted(wanted - reached), NO_GRADIENT)}


def require_trained(model: PreTrainedModel, linears: Sequence[str], refusal: Callable[[str, str], str]) -> None:
    """Raise InputError if some of the layers `linears` of an adapted model would not be trained.

    `refusal` makes the message of the layers' names and the reason.
    """
    idle = idle_layers(model.config)
    if idle is None and model.device.type != "meta":
        with computable(model):
            idle = _found_by_computing(model, linears)
    wrong = [name for name in linears if name in (idle or {})]
    if idle and wrong:
        raise InputError(refusal(first_names(wrong), idle[wrong[0]]))


def _found_by_computing(model: PreTrainedModel, linears: Sequence[str]) -> dict[str, str]:
    reached = _reached(model, linears, {}, _plainly, SHORT)
    if set(linears) - reached:
        reached |= _reached(model, linears, {}, _plainly, LONG)
    return {name: NO_GRADIENT for name in linears if name not in reached}


def _plainly(model: PreTrainedModel, ids: Tensor) -> Tensor:
    logits: Tensor = language_model(model)(input_ids=ids, use_cache=False).logits
    return logits


def _with_cache(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Without a cache or a mask, transformers asks whether several texts stand in the ids; with one, nothing."""
    logits: Tensor = language_model(model)(input_ids=ids, use_cache=True).logits
    return logits


def _with_mask(model: PreTrainedModel, ids: Tensor) -> Tensor:
    logits: Tensor = language_model(model)(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits


@torch.enable_grad()
def _reached(
    model: PreTrainedModel, linears: Sequence[str], tensors: Mapping[str, Tensor], call: _Call, tokens: int
) -> set[str]:
    """Those of the layers and tensors that a gradient of the logits of so many tokens comes to."""
    known = len(model.get_input_embeddings().get_parameter("weight"))
    ids = torch.arange(1, tokens + 1, device=model.device)[None] % known
    with _probes(model, linears) as probes:
        logits = call(model, ids)
    found = _sources(logits)
    return {name for name, source in {**probes, **tensors}.items() if id(source) in found}


def _sources(result: Tensor) -> set[int]:
    """Of which tensors a gradient would be computed, as `id` gives them: the graph is read, and none is computed."""
    seen, left = set[object](), [result.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [earlier for earlier, _ in node.next_functions]
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


@contextmanager
def _probes(model: PreTrainedModel, linears: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """A context in which a zero of its own is added to what each of the layers gives."""
    probes = {name: torch.zeros((), device=model.device, requires_grad=True) for name in linears}

    def adding(probe: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
        return lambda layer, inputs, given: given + probe.to(given.dtype)

    hooks = [model.get_submodule(name).register_forward_hook(adding(probe)) for name, probe in probes.items()]
    try:
        yield probes
    finally:
        for hook in hooks:
            hook.remove()
