"""Whether the fast backbone computes what the model does: both are computed on the device and compared, before use."""

import numpy as np
import torch
from torch import Tensor

from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.attention import CausalAttention, DecodeAttention, KeysValues
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.kv_slots import KVSlots
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError

PREFILLED, DECODED = 12, 4
"""Tokens that are computed at once, and one by one behind them."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far apart the two may be, as a share of the hidden states' norm; another architecture is far beyond it."""


def verified_backbone(causal_lm: CausalLM) -> FastBackbone:
    """A fast backbone that was compared with the model's own. Raises UnsupportedModelError, saying why, without one."""
    kind = causal_lm.device.device.type
    if kind not in ("cuda", "cpu"):
        raise UnsupportedModelError(f"it was never tried on {kind}")
    if causal_lm.dtype not in TOLERANCE:
        raise UnsupportedModelError(f"it was never tried in {causal_lm.dtype}")
    try:
        with torch.no_grad():
            backbone = FastBackbone(causal_lm)
        difference = _difference(backbone)
    except (ImportError, RuntimeError) as error:  # what Triton and torch.compile raise, without a compiler for one
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedModelError(f"it cannot be run here: {type(error).__name__}: {reason}") from error
    if not difference <= TOLERANCE[causal_lm.dtype]:
        raise UnsupportedModelError(f"its hidden states are {difference:.2g} of their norm away from transformers'")
    return backbone


@torch.inference_mode()
def _difference(backbone: FastBackbone) -> float:
    """The distance between the hidden states of both backbones, as a share of their norm."""
    causal_lm, device = backbone.causal_lm, backbone.causal_lm.device.device
    numbers = np.random.default_rng(0).integers(0, backbone.vocabulary_size, PREFILLED + DECODED)
    ids = torch.from_numpy(numbers).to(device)
    with causal_lm.without_adapter():
        plain = causal_lm.hidden_states(ids[None])[0].float()
    difference = torch.cat(_prefilled_and_decoded(backbone, ids)).float() - plain
    return float(difference.norm() / plain.norm())


def _prefilled_and_decoded(backbone: FastBackbone, ids: Tensor) -> list[Tensor]:
    """The hidden states of `ids`: of the first at once, of the others one by one."""
    cos, sin = backbone.rotary(len(ids))
    kept: KeysValues = []
    prefill = CausalAttention(PREFILLED, backbone.scale, kept)
    parts = [backbone(ids[:PREFILLED], cos[:PREFILLED], sin[:PREFILLED], prefill)]
    shape = (2, backbone.kv_heads, len(ids), backbone.head_dim)
    slots = KVSlots.empty(len(backbone.layers), shape, backbone.layers[0].qkv)
    # Two equal slots: for a single one, torch.compile would make code that fits nothing else.
    zeros = torch.zeros(2, dtype=torch.long, device=ids.device)
    slots.fill(zeros + torch.arange(2, device=ids.device), zeros, kept)
    for position in range(PREFILLED, len(ids)):
        positions = zeros + position
        decode = DecodeAttention(slots, positions, backbone.scale, position + 1)
        parts.append(backbone(ids[positions], cos[positions], sin[positions], decode)[:1])
    return parts
