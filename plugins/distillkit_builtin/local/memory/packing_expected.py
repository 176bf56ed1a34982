"""Whether training will pack its sequences, as far as that shows without weights: see `packing_proof.py`."""

from functools import lru_cache

import numpy as np
import torch

from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.memory.training_trace import META, row_on_meta
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.model.footprint import Footprint, model_on_meta
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS
from distillkit_builtin.local.model_files.model_config import config_state
from distillkit_builtin.local.option_types import ForwardName
from distillkit_builtin.local.packing.packed_attention import AttentionCall
from distillkit_builtin.local.packing.packed_forward import packed_hidden_states
from distillkit_builtin.local.packing.packing import PackedRow
from distillkit_builtin.local.packing.packing_conditions import declared_windows, require_declared
from distillkit_builtin.local.packing.packing_proof import TOLERANCE
from distillkit_builtin.model_source import resolve_model


def packs(source: str, size: Footprint, forward: ForwardName) -> bool:
    """Whether sequences will be packed in training; the proof with the weights may still find that they cannot be."""
    kind = size.device.partition(":")[0]
    if forward == "plain" or kind not in ("cuda", "cpu") or size.dtype not in TOLERANCE:
        return False
    if kind == "cuda" and size.dtype == torch.float32:
        return False
    return _fits(source, config_state(resolve_model(source).base))


@lru_cache(maxsize=16)
def _fits(source: str, state: tuple[int, int] | None) -> bool:
    """Whether its layers ask attention for nothing but what packed sequences compute."""
    causal_lm = CausalLM(model_on_meta(source).eval(), Device(META), torch.float32)
    ids = np.arange(1, 9)
    row = row_on_meta([PromptAndResponse(ids[:3], ids[3:]), PromptAndResponse(ids[:3], ids[5:])])
    calls: list[AttentionCall] = []
    try:
        windows = declared_windows(causal_lm)
        whole = _compute(causal_lm, row, calls)
        require_declared(calls, windows, whole=whole)
    except UnsupportedModelError:
        return False
    return True


@torch.no_grad()
def _compute(causal_lm: CausalLM, row: PackedRow, calls: list[AttentionCall]) -> bool:
    """Whether all layers could be computed. Some ask tensors for values, which there are none of: experts do."""
    try:
        packed_hidden_states(causal_lm, row, calls)
    except InputError:
        raise
    except RuntimeError:
        return False
    except MODEL_ERRORS as error:
        raise UnsupportedModelError(str(error)) from error
    return True
