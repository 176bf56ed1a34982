"""How large a model is and whether it can be used, without its weights: torch's meta device holds no data."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from distillkit.errors import InputError
from distillkit_builtin.file_errors import one_line
from distillkit_builtin.local.device import resolve_dtype
from distillkit_builtin.local.lora.decoder_layers import linear_ends
from distillkit_builtin.local.lora.lora_targets import LoraSize, find_targets
from distillkit_builtin.local.model.model_cache import empty_cache, layers_with_keys
from distillkit_builtin.local.model.recurrent_state import state_numbers
from distillkit_builtin.local.model_files.model_class import (
    empty_model,
    language_model,
    require_text_alone,
    text_decoder,
    text_parameters,
)
from distillkit_builtin.local.model_files.model_config import config_state, layer_configs, read_config
from distillkit_builtin.local.model_files.quantization import Quantization, quantization_of
from distillkit_builtin.local.model_files.quiet_loading import quiet_loading
from distillkit_builtin.local.model_files.stored_quantization import unpacked_method
from distillkit_builtin.local.option_types import DTypeName
from distillkit_builtin.model_source import resolve_model

TRAINED_BYTES = 4 + 4 + 4 + 4
"""Of a trained parameter: itself, its gradient and AdamW's two moments, all in float32."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Sizes of a model's parts, from its config."""

    architecture: str
    """The model's class."""
    parameters: int
    """Tied ones once."""
    quantizable: int
    """Weights of the linear layers but the head: what a model in few bits keeps in them."""
    text_parameters: int
    """Without those of towers for pictures and sound, which are never trained."""
    linear_parameters: int
    """Weights of those that a LoRA is put on, unless others are chosen."""
    linear_ends: int
    """Inputs and outputs of those layers: a LoRA has `rank` times as many parameters."""
    layers: int
    hidden: int
    """Width of what goes from layer to layer."""
    vocabulary: int
    """Rows of the embeddings."""
    linear_outputs: int
    """Outputs of those linear layers, for one token."""
    widest_output: int
    """Outputs of the widest of them."""
    attention_outputs: int
    """What attention gives for one token, in all layers."""
    cached: int
    """Keys and values of one token, in all layers that keep some."""
    norms_heads: bool
    """Whether queries and keys are normed: what norms read and what they give are both kept for a backward pass."""
    state: int
    """Numbers that recurrent layers keep of one sequence."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory that a model takes on a device."""

    structure: Structure
    device: str
    dtype: torch.dtype
    """The dtype of the computation."""
    quantization: Quantization | None = None
    """How linear layers keep their weights; None: in the dtype of the computation."""
    unpacked: str | None = None
    """The method of quantization that weights are unpacked from while they are read."""

    @property
    def weight_bytes(self) -> int:
        """The weights once, in the compute dtype or as they are quantized: a frozen model."""
        size, linear = self.dtype.itemsize, self.structure.quantizable
        kept = size if self.quantization is None else self.quantization.weight_bytes or size
        return int((self.structure.parameters - linear) * size + linear * kept)

    def training_bytes(
        self, lora_rank: int, *, samples: bool = True, lora: LoraSize | None = None, merges: bool = True
    ) -> int:
        """Bytes that a student shares with nobody: trained weights, optimizer, and, if it `samples`, its sampling copy.

        A LoRA's base is not counted in; it is the frozen model. With rank 0 all weights are trained. `lora`: what the
        LoRA is on, where that was chosen. `merges`: the copy has its sums with linear layers' weights.
        """
        if lora_rank == 0:
            towers = self.structure.parameters - self.structure.text_parameters
            frozen = towers * torch.float32.itemsize
            return self.structure.text_parameters * TRAINED_BYTES + frozen + samples * self.weight_bytes
        if lora is None:
            lora = LoraSize(lora_rank * self.structure.linear_ends, self.structure.linear_parameters, 0)
        beside = lora.trained + lora.expert_weights
        merged = (lora.linear_weights + lora.expert_weights if merges else beside) * self.dtype.itemsize
        if self.quantization is not None:  # the copy has adapters beside layers in few bits
            merged = lora.trained * torch.float32.itemsize + lora.expert_weights * self.dtype.itemsize
        return lora.trained * TRAINED_BYTES + samples * merged

    def describe(self) -> str:
        """One line for `distillkit check`: parameters, gigabytes, number format, device."""
        number = str(self.dtype).removeprefix("torch.")
        parameters, size = counted(self.structure.parameters), self.weight_bytes
        weights = f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
        kept = number if self.quantization is None else f"{self.quantization.method}, computed in {number},"
        stored = "" if self.unpacked is None else f", unpacked from {self.unpacked}"
        return f"{parameters} parameters, {weights} as {kept} on {self.device}{stored}"


def counted(parameters: int) -> str:
    """So many parameters, as messages have it."""
    return f"{parameters / 1e6:,.0f} M" if parameters >= 1e6 else f"{parameters:,}"


def model_structure(source: str) -> Structure:
    """Of the model `source`, found from its modules. Raises InputError if it is not one that can be computed here."""
    return _structure(source, config_state(resolve_model(source).base))


@lru_cache(maxsize=16)
def _structure(source: str, state: tuple[int, int] | None) -> Structure:
    model = model_on_meta(source)
    try:
        require_text_alone(model)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    head = language_model(model).get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear | Conv1D) and m is not head]
    targets = find_targets(model, None, experts=False)
    outputs = [linear_ends(model.get_submodule(name))[1] for name in targets.linears]
    config = model.config.get_text_config(decoder=True)
    hidden, layers = _number(config, "hidden_size", 1), _number(config, "num_hidden_layers", 1)
    each = list(layer_configs(config))
    attention = [_attention_sizes(layer) for layer in (each if len(each) == layers else [each[0]] * layers)]
    kept = layers_with_keys(empty_cache(model), layers)
    return Structure(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        text_parameters=sum(parameter.numel() for parameter in text_parameters(model).values()),
        quantizable=sum(module.weight.numel() for module in linear),
        linear_parameters=targets.linear_weights,
        linear_ends=targets.ends,
        layers=layers,
        hidden=hidden,
        vocabulary=_number(config, "vocab_size", 1),
        linear_outputs=sum(outputs),
        widest_output=max(outputs, default=0),
        attention_outputs=sum(outputs for outputs, _ in attention),
        cached=sum(cached for _, cached in attention) * kept // layers,
        norms_heads=any(name.rpartition(".")[2] == "q_norm" for name, _ in model.named_modules()),
        state=state_numbers(model),
    )


def _attention_sizes(config: PreTrainedConfig) -> tuple[int, int]:
    """What attention of a layer gives for one token, and the keys and values that it keeps of it."""
    heads = _number(config, "num_attention_heads", 1)
    head_dim = _number(config, "head_dim", _number(config, "hidden_size", 1) // heads)
    return heads * head_dim, 2 * _number(config, "num_key_value_heads", heads) * head_dim


def _number(config: PreTrainedConfig, name: str, default: int) -> int:
    """A size of a config, or what stands for it where the config has none, or one a layer."""
    value = getattr(config, name, None)
    return value if isinstance(value, int) and value else default


def model_on_meta(source: str) -> PreTrainedModel:
    """The model without data. Raises InputError unless transformers has it as a text model that reads from the left."""
    config = read_config(source)
    try:
        with quiet_loading():
            model = empty_model(config)
            decoder = text_decoder(model)
        empty_cache(model)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    except Exception as error:  # what a cache computes with a config's values may be of no use
        raise InputError(f"{source}: no model can be built from its config.json: {one_line(error)}") from error
    name = type(model).__name__
    if language_model(model).get_output_embeddings() is None:
        raise InputError(
            f"{source} is a {name}, in which the local backend finds no head for text; serve it over HTTP instead"
        )
    attributes = [vars(module).get(key) for module in decoder.modules() for key in ("is_causal", "is_decoder")]
    if False in attributes and True not in attributes:
        raise InputError(
            f"{source} is a {name} that reads in both directions (as BERT does, and PaliGemma its prompt), so it can "
            "neither sample nor score next tokens; choose a causal language model"
        )
    return model


def footprint(source: str, device: torch.device, dtype: DTypeName) -> Footprint:
    """The size of `source` on the device, in the dtype that the option leads to there."""
    there = device if device.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")  # a planned card
    quantization, unpacked = quantization_of(source, there), unpacked_method(read_config(source))
    return Footprint(model_structure(source), str(device), resolve_dtype(dtype, device), quantization, unpacked)
