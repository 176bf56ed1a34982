"""Whether the fast path computes what a model computes: found out on the device, by computing both, before its use."""

import numpy as np
import torch
from torch import Tensor

from distillkit_builtin.local.causal_lm import CausalLM
from distillkit_builtin.local.fast.attention import Causal, OneToken
from distillkit_builtin.local.fast.backbone import FastBackbone, UnsupportedModelError
from distillkit_builtin.local.fast.kv_slots import Slots

READ, DRAWN = 12, 4
"""Tokens that are read at once, and one by one behind them."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far apart the two may be, as a share of the hidden states' norm; another architecture is far beyond it."""


def verified_backbone(causal_lm: CausalLM) -> FastBackbone:
    """The causal_lm's fast backbone, made and compared once. Raises UnsupportedModelError, saying why there is none."""
    if causal_lm.fast is None:
        causal_lm.fast = _prove(causal_lm)
    if isinstance(causal_lm.fast, str):
        raise UnsupportedModelError(causal_lm.fast)
    return causal_lm.fast


def _prove(causal_lm: CausalLM) -> "FastBackbone | str":
    kind = causal_lm.device.device.type
    if kind not in ("cuda", "cpu"):
        return f"it was never tried on {kind}"
    if causal_lm.dtype not in ROUNDING:
        return f"it was never tried in {causal_lm.dtype}"
    try:
        with torch.no_grad():
            backbone = FastBackbone(causal_lm)
        apart = _apart(backbone)
    except UnsupportedModelError as reason:
        return str(reason)
    except (ImportError, RuntimeError) as error:  # what Triton and torch.compile raise, without a compiler for one
        return f"it cannot be run here: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if not apart <= ROUNDING[causal_lm.dtype]:
        return f"its hidden states are {apart:.2g} of their norm away from transformers'"
    return backbone


@torch.inference_mode()
def _apart(backbone: FastBackbone) -> float:
    """The distance between the hidden states of both ways, as a share of their norm."""
    causal_lm, device = backbone.causal_lm, backbone.causal_lm.device.device
    count = READ + DRAWN
    vocabulary = backbone.vocabulary
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, count)).to(device)
    with causal_lm.without_adapter():
        plain = causal_lm.hidden_states(ids[None])[0].float()
    difference = torch.cat(_both_ways(backbone, ids)).float() - plain
    return float(difference.norm() / plain.norm())


def _both_ways(backbone: FastBackbone, ids: Tensor) -> list[Tensor]:
    cos, sin = backbone.rotary(len(ids))
    kept: list[tuple[Tensor, Tensor]] = []
    parts = [backbone(ids[:READ], cos[:READ], sin[:READ], Causal(READ, backbone.scale, kept))]
    slots = Slots.empty(
        len(backbone.layers), (2, backbone.kv_heads, len(ids), backbone.head_dim), backbone.layers[0].qkv
    )
    # Two slots alike: for a single one, torch.compile would make code that fits nothing else.
    first = torch.zeros(2, dtype=torch.long, device=ids.device)
    slots.fill(first + torch.arange(2, device=ids.device), first, kept)
    for place in range(READ, len(ids)):
        positions = first + place
        attend = OneToken(slots, positions, backbone.scale, place + 1)
        parts.append(backbone(ids[positions], cos[positions], sin[positions], attend)[:1])
    return parts
