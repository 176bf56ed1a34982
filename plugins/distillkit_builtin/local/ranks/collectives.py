"""Gradients and weights of all ranks: summed after a step's last micro-batch, and equal from the start.

This is what PyTorch's DistributedDataParallel does, with the sum behind the backward passes instead of among them:
until then nobody waits for anybody, so a rank that is out of memory can do its share again in smaller parts, and one
that meets a number that is not finite can say so, without the others hanging in a collective operation.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch.nn import Parameter


def sum_gradients(parameters: Iterable[Parameter]) -> None:
    """Add up all ranks' gradients in place; a rank that had nothing to train adds zeros."""
    waiting = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        waiting.append(dist.all_reduce(parameter.grad, async_op=True))
    for work in waiting:
        if work is not None:
            work.wait()


@torch.no_grad()
def take_over(parameters: Iterable[Parameter]) -> None:
    """Rank 0's weights, in place, on every rank."""
    for parameter in parameters:
        dist.broadcast(parameter.data, src=0)
