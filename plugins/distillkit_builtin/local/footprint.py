"""How large a model is and whether it can be used, without its weights: torch's meta device holds no data."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin
from transformers.pytorch_utils import Conv1D

from distillkit.errors import InputError
from distillkit.ranks import ONLY, Rank
from distillkit_builtin.local.device import resolve_device, resolve_dtype
from distillkit_builtin.local.model_config import declared_text_config, read_config
from distillkit_builtin.local.option_types import DTypeName
from distillkit_builtin.local.quantization import Quantization, quantization_of

TRAINED_BYTES = 4 + 4 + 4 + 4
"""Of a trained parameter: itself, its gradient and AdamW's two moments, all in float32."""


@dataclass(frozen=True, slots=True)
class Structure:
    """Sizes of a model's parts, from its config."""

    architecture: str
    """The model's class."""
    parameters: int
    """Tied ones once."""
    linear_parameters: int
    """Weights of the linear layers but the head: what a LoRA is put on."""
    linear_ends: int
    """Inputs and outputs of those layers: a LoRA has `rank` times as many parameters."""
    recurrent: bool
    """Some layers read a sequence into a state (linear attention, convolutions), not into keys and values."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory that a model takes on a device."""

    structure: Structure
    device: str
    dtype: torch.dtype
    """The dtype of the computation."""
    quantization: Quantization | None = None
    """How linear layers keep their weights; None: in the dtype of the computation."""

    @property
    def weight_bytes(self) -> int:
        """The weights once, in the compute dtype or as they are quantized: a frozen model."""
        size, linear = self.dtype.itemsize, self.structure.linear_parameters
        kept = size if self.quantization is None else self.quantization.weight_bytes or size
        return int((self.structure.parameters - linear) * size + linear * kept)

    def training_bytes(self, lora_rank: int, *, samples: bool = True) -> int:
        """Bytes that a student shares with nobody: trained weights, optimizer, and, if it `samples`, its sampling copy.

        A LoRA's base is not counted in; it is the frozen model. With rank 0 all weights are trained.
        """
        if lora_rank == 0:
            return self.structure.parameters * TRAINED_BYTES + samples * self.weight_bytes
        adapter = lora_rank * self.structure.linear_ends
        merged = self.structure.linear_parameters * self.dtype.itemsize
        copied = merged if self.quantization is None else adapter * torch.float32.itemsize
        return adapter * TRAINED_BYTES + samples * copied

    def describe(self) -> str:
        """One line for `distillkit check`: parameters, gigabytes, number format, device."""
        number = str(self.dtype).removeprefix("torch.")
        millions, gigabytes = self.structure.parameters / 1e6, self.weight_bytes / 1e9
        kept = number if self.quantization is None else f"{self.quantization.method}, computed in {number},"
        return f"{millions:,.0f} M parameters, {gigabytes:.2f} GB as {kept} on {self.device}"


@lru_cache(maxsize=16)
def model_structure(source: str) -> Structure:
    """Of the model `source`, found from its modules. Raises InputError if its config cannot be read."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(read_config(source), trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = [
        weight
        for module in model.modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
        for weight in [module.weight]
    ]
    return Structure(
        architecture=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linear_parameters=sum(weight.numel() for weight in linear),
        linear_ends=sum(sum(weight.shape) for weight in linear),
        recurrent=_is_recurrent(model),
    )


def _is_recurrent(model: PreTrainedModel) -> bool:
    """Hybrid layers are found by their class: they take indices, and apply them to their keys and values alone."""
    if model._is_stateful:
        return True
    layers = DynamicCache(config=declared_text_config(model.config)).layers
    return any(
        isinstance(layer, LinearAttentionCacheLayerMixin) or not hasattr(layer, "batch_select_indices")
        for layer in layers
    )


def require_batchable(source: str) -> None:
    """Raise InputError for a model with recurrent layers, whose states would read the padding on the left."""
    found = model_structure(source)
    if found.recurrent:
        raise InputError(
            f"{source} is a {found.architecture}, and the local backend cannot batch recurrent layers (linear "
            "attention, convolutions) yet; serve it over HTTP instead"
        )


def footprint(source: str, device: str, dtype: DTypeName, rank: Rank = ONLY) -> Footprint:
    """The size of `source` on the device and in the dtype that these options lead to."""
    where = resolve_device(device, rank)
    return Footprint(model_structure(source), str(where), resolve_dtype(dtype, where), quantization_of(source, where))
