"""How many tokens training computes at once where the user sets no number: as many as keep the device busy, no more."""

import torch

from distillkit_builtin.local.footprint import Structure

TRAINED_ON_CUDA, TRAINED = 16_384, 4096
"""Tokens of a micro-batch at most, unless the user sets another number."""
ENOUGH_ON_CUDA = 4096
"""Tokens with which a frozen weight costs next to nothing to read: forward and backward read its 2 bytes once each, for
4 operations a token. That is one operation a byte and token; an H100 does 295 in the time of a byte, an H200 206."""
LAYER_OPERATIONS = 2**39
"""Of one layer's products, forward: about a millisecond of such a card. The hundred kernels of a narrower layer take
the host as long to launch as they take the device."""
ROUNDED = 1024


def default_micro_batch(device: torch.device, structure: Structure, *, lora: bool) -> int:
    """Tokens of a micro-batch of a model's training.

    Where all weights are trained, each micro-batch also adds up their gradients in float32, and casts them: 24 bytes a
    weight. So only a LoRA on wide layers takes fewer than `TRAINED_ON_CUDA`.
    """
    if device.type != "cuda":
        return TRAINED
    return _busy(structure) if lora else TRAINED_ON_CUDA


def has_wide_layers(structure: Structure) -> bool:
    """Whether products take nearly all of a layer's time on a GPU, and what stands between them next to nothing."""
    return _busy(structure) == ENOUGH_ON_CUDA


def _busy(structure: Structure) -> int:
    weights = max(1, structure.linear_parameters // max(1, structure.layers))
    tokens = -(-LAYER_OPERATIONS // (2 * weights * ROUNDED)) * ROUNDED
    return min(TRAINED_ON_CUDA, max(ENOUGH_ON_CUDA, tokens))
