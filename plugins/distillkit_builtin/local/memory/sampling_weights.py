"""How a student's own sampler holds its LoRA: merged into a second copy of weights, or beside the base's only one."""

import torch

from distillkit.context import RunContext
from distillkit_builtin.local.memory.room import total_bytes
from distillkit_builtin.local.model.footprint import Footprint, footprint
from distillkit_builtin.local.options import LocalStudentOptions
from distillkit_builtin.local.training.trainable_adapter import lora_size

SHARE = 0.5
"""The share of a device's memory that base and merged copy may take: the other part is for training and teachers."""


def merges_lora(run: RunContext, options: LocalStudentOptions, device: torch.device) -> bool:
    """Whether the LoRA is added to weights of the sampler's own; of a planned run, on the card that it is planned for.

    By the size of the card alone and not by what is free, so that the same config computes the same again; on other
    devices always.
    """
    if options.sampling_weights != "auto" or not options.lora_rank or device.type != "cuda":
        return options.sampling_weights != "adapter"
    size = footprint(options.model, device, options.dtype)
    return size.weight_bytes + copy_bytes(options, size, merges=True) <= SHARE * total_bytes(device, run.planned_device)


def copy_bytes(options: LocalStudentOptions, size: Footprint, *, merges: bool) -> int:
    """What the sampler holds of a student besides what is trained."""
    lora = lora_size(options)
    rank = options.lora_rank
    whole = size.training_bytes(rank, lora=lora, merges=merges)
    return whole - size.training_bytes(rank, samples=False, lora=lora)
