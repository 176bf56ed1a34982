"""What `distillkit check` finds out of a model before its weights are read: files, names, shapes, adapters."""

from distillkit_builtin.local.lora.adapters import put_adapter, read_adapter, stored_adapter
from distillkit_builtin.local.model.footprint import model_on_meta
from distillkit_builtin.local.model.load_weights import refuse_quantized_base
from distillkit_builtin.local.model_files.checkpoint_fit import require_weights
from distillkit_builtin.model_source import resolve_model


def require_loadable(source: str) -> None:
    """Raise InputError if it can be known that the weights of the model `source`, or its adapters, cannot be loaded."""
    resolved = resolve_model(source)
    require_weights(resolved.base)
    refuse_quantized_base(resolved)
    for folder in resolved.adapters:
        put_adapter(model_on_meta(source), read_adapter(folder), stored_adapter(folder), folder)
