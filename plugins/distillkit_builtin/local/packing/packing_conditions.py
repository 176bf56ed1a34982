"""What a model must be made of to be packed, as far as it shows without data: layers of plain causal attention."""

from collections.abc import Sequence

from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.packing.packed_attention import AttentionCall


def declared_windows(causal_lm: CausalLM) -> list[int | None]:
    """Of each layer how many tokens one attends to at most, itself too; None: all that stand before it.

    Raises:
        UnsupportedModelError: if a layer keeps something else than keys and values.
    """
    windows: list[int | None] = []
    for layer in causal_lm.new_cache().layers:
        if type(layer) is DynamicLayer:
            windows.append(None)
        elif type(layer) is DynamicSlidingWindowLayer:
            windows.append(layer.sliding_window)
        else:
            raise UnsupportedModelError("some of its layers are no plain attention, with keys and values alone")
    return windows


def require_declared(calls: Sequence[AttentionCall], windows: Sequence[int | None], *, whole: bool = True) -> None:
    """Raise UnsupportedModelError unless each layer asked attention once, for the window that the config declares.

    A layer that leaves its window to a mask would attend to everything: packed sequences have no mask. Without `whole`
    only the first layers were computed.
    """
    if not calls:
        raise UnsupportedModelError("its layers compute attention by themselves")
    found = [call.window for call in calls]
    if whole and len(found) != len(windows):
        raise UnsupportedModelError(f"its {len(windows)} layers ask for attention {len(found)} times")
    for layer, (asked, declared) in enumerate(zip(found, windows, strict=False)):
        if asked != declared:
            raise UnsupportedModelError(
                f"layer {layer} asks attention for {_in_words(asked)}, and its config declares {_in_words(declared)}"
            )


def _in_words(window: int | None) -> str:
    return "no window" if window is None else f"a window of {window} tokens"
