"""Gradients and weights of all ranks: summed after a step's last micro-batch, and equal from the start.

This is what PyTorch's DistributedDataParallel does, with the sum behind the backward passes instead of among them:
until then no rank waits for another, so one that is out of memory can compute its share again in smaller parts, and one
that finds a number that is not finite can report it, without the others hanging in a collective operation.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch.nn import Parameter


def sum_gradients(parameters: Iterable[Parameter]) -> None:
    """Add up all ranks' gradients in place; a rank that had nothing to train adds zeros."""
    pending = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        pending.append(dist.all_reduce(parameter.grad, async_op=True))
    for work in pending:
        if work is not None:
            work.wait()


@torch.no_grad()
def broadcast_weights(parameters: Iterable[Parameter]) -> None:
    """Set the weights of every rank to rank 0's, in place."""
    for parameter in parameters:
        dist.broadcast(parameter.data, src=0)
