"""Which forward computes what is not trained: the fast backbone, or transformers' own, and how that one decodes."""

from collections.abc import Callable

from distillkit.errors import InputError
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder
from distillkit_builtin.local.fixed.fused_norms import norms_on_cuda
from distillkit_builtin.local.fixed.step_graph import CudaCapture
from distillkit_builtin.local.fixed.step_proof import proved_decoder
from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError
from distillkit_builtin.local.model.causal_lm import CausalLM
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


def choose_decoder(causal_lm: CausalLM, notify: Callable[[str], None]) -> FixedDecoder | None:
    """How transformers' own forward decodes: on CUDA in recorded steps where they are proved, else None.

    Elsewhere nothing is gained by them: there is no time between operations to be saved. Notifies why there are none.
    """
    if causal_lm.device.device.type != "cuda":
        return None
    try:
        return proved_decoder(causal_lm, CudaCapture(), norms_on_cuda())
    except UnsupportedStepError as reason:
        notify(f"{type(causal_lm.model).__name__} decodes without a CUDA graph: {reason}")
        return None
