"""Attention that grows with the position, from some thousand tokens on: made to begin within the rows of a proof.

Llama 4 scales queries by `1 + attn_scale * log1p(floor((position + 1) / floor_scale))`, and counts positions in the
batch: behind padding on the left they are others (transformers 5.x). No short row shows that with a floor of 8192.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from torch import nn

FLOORS: Mapping[str, float] = MappingProxyType({"floor_scale": 4, "log_scaling_n_floor": 4})
"""From which position on, and what a proof takes."""
SLOPES: Mapping[str, float] = MappingProxyType({"attn_scale": 2.0, "log_scaling_alpha": 2.0})
"""How much, and what a proof takes: so much that it is seen in bfloat16."""


def scales_by_position(model: nn.Module) -> bool:
    """Whether layers of the model scale anything so."""
    return any(name in vars(layer) for layer in model.modules() for name in FLOORS)


@contextmanager
def early_scales(model: nn.Module) -> Iterator[None]:
    """Within the block they begin at a few tokens, and steeply; it is another model, of the same code."""
    layers = [layer for layer in model.modules() if any(name in vars(layer) for name in FLOORS)]
    changed = {**FLOORS, **SLOPES}
    before = [(layer, name, vars(layer)[name]) for layer in layers for name in changed if name in vars(layer)]
    try:
        for layer, name, _ in before:
            setattr(layer, name, changed[name])
        yield
    finally:
        for layer, name, value in before:
            setattr(layer, name, value)
