"""What `distillkit check` finds out of a model before its weights are read: files, names, shapes, adapters, packages."""

from distillkit.errors import InputError
from distillkit_builtin.local.adapters import put_adapter, read_adapter, stored_adapter
from distillkit_builtin.local.checkpoint_fit import require_weights
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


def _require_quantizer(base: str) -> None:
    """Raise InputError if a package that reads the model's quantized weights is not installed."""
    from transformers.quantizers.auto import AutoHfQuantizer

    config = getattr(read_config(base), "quantization_config", None)
    if config is None:
        return
    try:
        AutoHfQuantizer.from_config(config, pre_quantized=True).validate_environment()
    except ImportError as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the weights of {base!r} are quantized, and cannot be read: {reason}") from error
    except (ValueError, RuntimeError):  # for want of a device or dtype, which it will be told: loading says what it lacks
        return
