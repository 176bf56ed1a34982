"""Recomputing each decoder layer's activations in the backward pass, instead of keeping them.

transformers' own switch works in training mode alone, which would turn on the base's dropout too (`Policy.training`).
"""

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from distillkit.errors import InputError


def checkpoint_activations(model: nn.Module) -> None:
    """Let every decoder layer recompute its activations where it computes with gradient.

    The class is changed, and not a method of each object: torch.compile would compile every layer by itself.

    Raises:
        InputError: if transformers does not say which layers of the model can be computed twice.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"student.gradient_checkpointing: {type(model).__name__} does not support it; take false, and a smaller "
            "student.micro_batch_tokens"
        )
    for layer in layers:
        kind: Any = type(layer)
        layer.__class__ = _recomputing(kind)


@functools.cache
def _recomputing(kind: Any) -> Any:  # noqa: ANN401 - a class that is made here
    """A class of layers that are `kind`, and recompute."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - whatever a layer takes
        if not torch.is_grad_enabled():
            return kind.forward(self, *args, **kwargs)
        return checkpoint(functools.partial(kind.forward, self), *args, use_reentrant=False, **kwargs)

    return type(kind.__name__, (kind,), {"forward": forward})
