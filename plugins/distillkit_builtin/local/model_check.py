"""What `distillkit check` finds out of a model before its weights are read: files, names, shapes, adapters."""

from pathlib import Path

from distillkit.errors import InputError
from distillkit_builtin.hf_tokenizer import one_line
from distillkit_builtin.local.adapters import put_adapter, read_adapter, require_trainable, stored_adapter
from distillkit_builtin.local.checkpoint_fit import is_quantized, require_weights
from distillkit_builtin.local.footprint import model_on_meta
from distillkit_builtin.local.load_weights import refuse_quantized_base
from distillkit_builtin.local.model_config import read_config
from distillkit_builtin.model_source import resolve_model


def require_loadable(source: str) -> None:
    """Raise InputError if it can be known that the weights of the model `source`, or its adapters, cannot be loaded."""
    resolved = resolve_model(source)
    require_weights(resolved.base)
    _require_quantizer(resolved.base)
    refuse_quantized_base(resolved)
    for folder in resolved.adapters:
        put_adapter(model_on_meta(source), read_adapter(folder), stored_adapter(folder), folder)


def require_trainable_start(source: str, folder: Path) -> None:
    """Raise InputError if the adapter in `folder` does not fit the model `source`, or is more than a LoRA."""
    model = model_on_meta(source)
    put_adapter(model, read_adapter(folder), stored_adapter(folder), folder, trainable=True)
    require_trainable(model, folder)


def require_unquantized(source: str) -> None:
    """Raise InputError if all weights of a quantized model are to be trained."""
    if is_quantized(resolve_model(source).base):
        raise InputError(
            f"lora_rank: 0 trains all weights, and those of {source!r} are quantized, which cannot be; train a LoRA, "
            "or take the model that was quantized"
        )


def _require_quantizer(base: str) -> None:
    """Raise InputError if a package that reads the model's quantized weights is not installed."""
    from transformers.quantizers import auto

    config = getattr(read_config(base), "quantization_config", None)
    if config is None:
        return
    try:
        auto.AutoHfQuantizer.from_config(config, pre_quantized=True).validate_environment()
    except ImportError as error:
        raise InputError(f"the weights of {base!r} are quantized, and cannot be read: {one_line(error)}") from error
    except (
        ValueError,
        RuntimeError,
    ):  # it lacks what only the loading tells it
        return
