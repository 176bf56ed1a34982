"""Inner products of the gradients of several batches, computed one after another, with nothing moved."""

from collections.abc import Sequence

import torch
from torch import Tensor

from distillkit.training_data import Batch
from distillkit_builtin.local.training.trainer import Trainer


def gradient_products(trainer: Trainer, batches: Sequence[Batch]) -> list[list[float]] | None:
    """[n][n] under the weights as they are; None where they are sharded: each rank has a part of each gradient.

    Every batch's gradient is kept in main memory, in float32. Raises BadStepError as a step does.
    """
    if trainer.policy.sharded is not None:
        return None
    gradients = [_gradient(trainer, batch) for batch in batches]
    return [
        [sum(float(torch.dot(a, b)) for a, b in zip(first, second, strict=True)) for second in gradients]
        for first in gradients
    ]


def _gradient(trainer: Trainer, batch: Batch) -> list[Tensor]:
    """A copy of the batch's gradient by each trained parameter, flat; it is cleared behind that."""
    trainer.compute_gradient(batch)
    copies = [
        torch.zeros(parameter.numel())
        if parameter.grad is None
        else parameter.grad.detach().flatten().to("cpu", torch.float32, copy=True)
        for parameter in trainer.policy.trained.values()
    ]
    trainer.optimizer.zero_grad(set_to_none=True)
    return copies
