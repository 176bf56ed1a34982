"""What a config says of quantized weights, and which of them are unpacked into plain numbers while they are read.

Some formats come with kernels for one kind of GPU, which transformers fetches from the hub, and which mostly have no
gradient. Their weights are plain numbers times scales, so they are read as that: the same numbers on every device,
which can be trained and take a LoRA in, at the price of memory. Activations are not rounded. Needs no torch.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TENSORS_TELL = frozenset({"fp8", "mxfp8", "mxfp4"})
"""Methods, by the names of configs, of which names and shapes of the stored tensors show whether they fit the model."""
BY_TRANSFORMERS = TENSORS_TELL | {"compressed-tensors"}
"""Those whose weights transformers unpacks while it loads them, if its config says `dequantize`."""
UNPACKED = BY_TRANSFORMERS | {"torchao"}


def quantization_in(config: "PreTrainedConfig") -> Mapping[str, Any] | None:
    """What the config says of quantized weights, of the whole model or of its text part; None if they are not."""
    for each in (config, config.get_text_config(decoder=True)):
        found = getattr(each, "quantization_config", None)
        if found is not None:
            return dict(found) if isinstance(found, Mapping) else dict(found.to_dict())
    return None


def unpacked_method(config: "PreTrainedConfig") -> str | None:
    """The method of weights that are unpacked while they are read; None for plain ones and those that stay packed."""
    method = (quantization_in(config) or {}).get("quant_method")
    name = str(getattr(method, "value", method))
    return name if name in UNPACKED else None


def stays_packed(config: "PreTrainedConfig") -> bool:
    """Whether a model of this config has quantized weights once it is loaded."""
    return quantization_in(config) is not None and unpacked_method(config) is None


def packed_method(config: "PreTrainedConfig") -> str | None:
    """The method of weights that stay packed, as far as the config alone says; None of all others."""
    said = quantization_in(config)
    if said is None or unpacked_method(config) is not None or said.get("dequantize"):
        return None
    return str(said.get("quant_method", "bitsandbytes"))


def to_load(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """The config with which transformers unpacks what is to be unpacked; others as they are."""
    if unpacked_method(config) not in BY_TRANSFORMERS:
        return config
    return _with_quantization(config, {**(quantization_in(config) or {}), "dequantize": True})


def unpacked(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """The config of the model once it is loaded: without what was unpacked."""
    return config if unpacked_method(config) is None else _with_quantization(config, None)


def _with_quantization(config: "PreTrainedConfig", quantization: Mapping[str, Any] | None) -> "PreTrainedConfig":
    changed = copy.deepcopy(config)
    for each in (changed, changed.get_text_config(decoder=True)):
        if getattr(each, "quantization_config", None) is not None:
            del each.quantization_config
    if quantization is not None:
        changed.quantization_config = dict(quantization)
    return changed
