"""Which forward computes what is not trained: the fast backbone, or transformers' own."""

from collections.abc import Callable

from distillkit.errors import InputError
from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.option_types import ForwardName


def choose_backbone(causal_lm: CausalLM, forward: ForwardName, notify: Callable[[str], None]) -> FastBackbone | None:
    """The model's fast backbone, or None for transformers' own forward; `auto` notifies why it takes that.

    Raises:
        InputError: if `fast` is requested and the model or the device does not support it.
    """
    if forward == "plain":
        return None
    try:
        return verified_backbone(causal_lm)
    except UnsupportedModelError as reason:
        if forward == "fast":
            raise InputError(f"forward: fast cannot be used: {reason}; take auto") from reason
        notify(f"{type(causal_lm.model).__name__} is computed by transformers' own forward: {reason}")
        return None
