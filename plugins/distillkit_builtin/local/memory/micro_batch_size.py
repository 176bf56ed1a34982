"""How many tokens training computes at once where the user sets no number: as many as keep the device busy, no more."""

import torch

from distillkit import PlannedDevice
from distillkit_builtin.local.memory.room import total_bytes
from distillkit_builtin.local.model.footprint import Structure, model_structure
from distillkit_builtin.local.options import LocalStudentOptions

TRAINED_ON_CUDA, TRAINED = 16_384, 4096
"""Tokens of a micro-batch at most, unless the user sets another number."""
ENOUGH_ON_CUDA = 4096
"""Tokens with which a frozen weight costs next to nothing to read: forward and backward read its 2 bytes once each, for
4 operations a token. That is one operation a byte and token; an H100 does 295 in the time of a byte, an H200 206."""
LAYER_OPERATIONS = 2**39
"""Of one layer's products, forward: about a millisecond of such a card. The hundred kernels of a narrower layer take
the host as long to launch as they take the device."""
LARGE_CARD, TRAINED_ON_LARGE_CARD = 75 * 2**30, 24_576
"""Bytes of a card on which the narrowest layers take more tokens: those sold with 80 GB and more. A smaller one would
be filled by what they keep. With 12,288 tokens of a 0.6B an H200 waited for the host in a tenth of training all
weights, and in a third of training a LoRA (benchmarks/NOTES.md)."""
ROUNDED = 1024


def micro_batch_tokens(options: LocalStudentOptions, device: torch.device, planned: PlannedDevice | None) -> int:
    """What the user sets, or the default on this device or on the card that the run is planned for."""
    if options.micro_batch_tokens:
        return options.micro_batch_tokens
    memory = total_bytes(device, planned) if device.type == "cuda" else 0
    return default_micro_batch(device, model_structure(options.model), lora=options.lora_rank > 0, memory=memory)


def default_micro_batch(device: torch.device, structure: Structure, *, lora: bool, memory: int) -> int:
    """Tokens of a micro-batch of a model's training; `memory` is all that a CUDA device has, in bytes.

    Where all weights are trained, each micro-batch also adds up their gradients in float32, and casts them: 24 bytes a
    weight. So only a LoRA on wider layers takes fewer than `TRAINED_ON_CUDA`.
    """
    if device.type != "cuda":
        return TRAINED
    enough = _busy(structure)
    if enough == TRAINED_ON_CUDA and memory >= LARGE_CARD:
        return TRAINED_ON_LARGE_CARD
    return enough if lora else TRAINED_ON_CUDA


def has_wide_layers(structure: Structure) -> bool:
    """Whether products take nearly all of a layer's time on a GPU, and what stands between them next to nothing."""
    return _busy(structure) == ENOUGH_ON_CUDA


def _busy(structure: Structure) -> int:
    weights = max(1, structure.linear_parameters // max(1, structure.layers))
    tokens = -(-LAYER_OPERATIONS // (2 * weights * ROUNDED)) * ROUNDED
    return min(TRAINED_ON_CUDA, max(ENOUGH_ON_CUDA, tokens))
