"""Whether the fast path computes what a model computes: found out on the device, by computing both, before its use."""

import numpy as np
import torch
from torch import Tensor

from distillkit_builtin.local.causal_lm import Network
from distillkit_builtin.local.fast.attention import Causal, OneToken
from distillkit_builtin.local.fast.backbone import FastTrunk, Unknown
from distillkit_builtin.local.fast.kv_slots import Slots

READ, DRAWN = 12, 4
"""Tokens that are read at once, and one by one behind them."""
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far apart the two may be, as a share of the hidden states' norm; another architecture is far beyond it."""


def proven_trunk(network: Network) -> FastTrunk:
    """The network's fast trunk, made and compared once. Raises Unknown, saying why there is none."""
    if network.fast is None:
        network.fast = _prove(network)
    if isinstance(network.fast, str):
        raise Unknown(network.fast)
    return network.fast


def _prove(network: Network) -> "FastTrunk | str":
    kind = network.device.device.type
    if kind not in ("cuda", "cpu"):
        return f"it was never tried on {kind}"
    if network.dtype not in ROUNDING:
        return f"it was never tried in {network.dtype}"
    try:
        with torch.no_grad():
            trunk = FastTrunk(network)
        apart = _apart(trunk)
    except Unknown as reason:
        return str(reason)
    except (ImportError, RuntimeError) as error:  # what Triton and torch.compile raise, without a compiler for one
        return f"it cannot be run here: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if not apart <= ROUNDING[network.dtype]:
        return f"its hidden states are {apart:.2g} of their norm away from transformers'"
    return trunk


@torch.inference_mode()
def _apart(trunk: FastTrunk) -> float:
    """The distance between the hidden states of both ways, as a share of their norm."""
    network, device = trunk.network, trunk.network.device.device
    count = READ + DRAWN
    vocabulary = trunk.vocabulary
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, count)).to(device)
    with network.without_adapter():
        plain = network.hidden_states(ids[None])[0].float()
    difference = torch.cat(_both_ways(trunk, ids)).float() - plain
    return float(difference.norm() / plain.norm())


def _both_ways(trunk: FastTrunk, ids: Tensor) -> list[Tensor]:
    cos, sin = trunk.rotary(len(ids))
    kept: list[tuple[Tensor, Tensor]] = []
    parts = [trunk(ids[:READ], cos[:READ], sin[:READ], Causal(READ, trunk.scale, kept))]
    slots = Slots.empty(len(trunk.layers), (2, trunk.kv_heads, len(ids), trunk.head_dim), trunk.layers[0].qkv)
    # Two slots alike: for a single one, torch.compile would make code that fits nothing else.
    first = torch.zeros(2, dtype=torch.long, device=ids.device)
    slots.fill(first + torch.arange(2, device=ids.device), first, kept)
    for place in range(READ, len(ids)):
        positions = first + place
        attend = OneToken(slots, positions, trunk.scale, place + 1)
        parts.append(trunk(ids[positions], cos[positions], sin[positions], attend)[:1])
    return parts
