"""Reading a model's weights: all of them from its files, adapters merged in, every number finite; or not at all."""

from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from distillkit.errors import InputError
from distillkit_builtin.file_errors import unavailable
from distillkit_builtin.hub import hub_options
from distillkit_builtin.local.lora.adapters import merge_adapter
from distillkit_builtin.local.model_files.checkpoint_fit import (
    is_quantized,
    load_on_meta,
    require_fit,
    unpacked_on_meta,
)
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS, auto_class
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.local.model_files.quantization import holds_numbers
from distillkit_builtin.local.model_files.quiet_loading import quiet_loading
from distillkit_builtin.local.model_files.stored_quantization import to_load, unpacked_method
from distillkit_builtin.local.model_files.unpacked_weights import unpack_exactly, unpack_tensors
from distillkit_builtin.local.model_files.weight_files import model_files, stored_tensors
from distillkit_builtin.model_source import ModelSource

NO_ADAPTER = "no adapter"
"""A folder that no model has: transformers looks there for an adapter to put beside the weights, and finds none."""
CPU = torch.device("cpu")
"""Where adapters are merged."""


def load_weights(source: ModelSource, dtype: torch.dtype, packed_on: torch.device = CPU) -> PreTrainedModel:
    """The model on the CPU, its weights in `dtype`, with the adapters merged in float32.

    One whose weights stay packed is on `packed_on`: left to itself transformers puts it on the current GPU.

    Raises:
        InputError: if the weights cannot be read, are not safetensors, or are not all of the model's.
    """
    if not source.adapters:
        return _load(source.base, dtype, packed_on)
    refuse_quantized_base(source)
    model = _load(source.base, torch.float32, CPU)
    for folder in source.adapters:
        model = merge_adapter(model, folder)
    _cast(model, source.base, dtype)
    return model


def refuse_quantized_base(source: ModelSource) -> None:
    """Raise InputError for adapters on a quantized model: merging would quantize their sum once more."""
    if source.adapters and is_quantized(source.base):
        raise InputError(
            f"the adapter in {source.adapters[0]} cannot be merged into {source.base!r}, whose weights are quantized: "
            "that would round it away. Name the model that was quantized as `base_model_name_or_path` in the adapter's "
            "adapter_config.json; as student.adapter it can be trained on as it is"
        )


def require_finite(model: PreTrainedModel, base: str) -> None:
    """Raise InputError if a weight is NaN or infinite, with its name, and its file where that is known."""
    for name, tensor in model.state_dict().items():
        if holds_numbers(tensor) and not tensor.isfinite().all():
            kind = "NaN" if tensor.isnan().any() else "infinite numbers"
            hint = "; in float16 large ones are: take bfloat16 or float32" if tensor.dtype == torch.float16 else ""
            raise InputError(f"the weights of {base!r} hold {kind}, in the tensor {name}{_file_of(base, name)}{hint}")


def _load(base: str, dtype: torch.dtype, packed_on: torch.device) -> PreTrainedModel:
    """A whole model, without the adapter that its directory may hold."""
    config = to_load(read_config(base))  # whose errors say more
    unpack_exactly()
    try:
        with quiet_loading():
            loaded = auto_class(config).from_pretrained(
                base,
                config=config,
                dtype=dtype,
                device_map={"": str(packed_on)} if is_quantized(base) else None,
                use_safetensors=True,  # the older format is a pickle
                trust_remote_code=False,
                adapter_kwargs={"subfolder": NO_ADAPTER},
                ignore_mismatched_sizes=True,  # they are reported, like all that does not fit
                output_loading_info=True,
                **hub_options(),
            )
    except (InputError, torch.OutOfMemoryError):
        raise
    except (OSError, SafetensorError, *MODEL_ERRORS) as error:
        raise InputError(unavailable("model", base, error)) from error
    model, info = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    require_fit(base, model, info)
    unpack_tensors(model, base)
    return model


def loaded_formats(base: str, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The format that each weight has once transformers has loaded the model `base` as `dtype`."""
    files = model_files(base)
    if files is None:
        raise InputError(f"the files of {base!r} were there, and are not any more")
    if unpacked_method(read_config(base)) is None:
        model, _ = load_on_meta(base, stored_tensors(files), dtype)
    else:
        model = unpacked_on_meta(base, dtype)
    return {name: tensor.dtype for name, tensor in model.state_dict().items()}


def _cast(model: PreTrainedModel, base: str, dtype: torch.dtype) -> None:
    """Bring float32 weights into the formats in which transformers would have loaded them as `dtype`.

    Some are float32 always: what a model says it keeps so, and buffers that are computed, such as rotary frequencies.
    """
    if dtype == torch.float32:
        return
    formats = loaded_formats(base, dtype)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in formats:
            tensor.data = tensor.data.to(formats[name])


def _file_of(base: str, name: str) -> str:
    """Where a tensor stands, if it has the same name there."""
    files = model_files(base)
    stored = stored_tensors(files).get(name) if files else None
    return f" of {stored.file}" if stored else ""
