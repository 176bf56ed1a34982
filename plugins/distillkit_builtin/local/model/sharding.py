"""All weights trained where one device has not enough memory: every rank keeps a part of them (FSDP2).

A layer's weights are gathered in float32 when it computes, so that the numbers are those of a student that is whole.
See https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.
"""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

Work = Callable[[], Tensor]


class ShardedModel(nn.Module):
    """The model as what FSDP2 calls and shards: it computes whatever needs the model's weights whole."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Of a model whose layers are sharded by themselves already."""
        super().__init__()
        self.model = model

    def forward(self, work: Work) -> Tensor:
        """The result of `work`: from it FSDP2 knows of the backward pass, so that it must be the one tensor."""
        return work()


def shard_model(model: PreTrainedModel) -> ShardedModel:
    """The model in shards, a decoder layer at a time; its parameters are DTensors from now on.

    They stay on the device where they are: left to itself FSDP2 takes the machine's GPU also for a run on the CPU.
    """
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    for layer in [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    sharded = ShardedModel(model)
    fully_shard(sharded, mesh=mesh)
    return sharded


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all ranks' parts of it. Every rank must call it with the same one at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def from_rank_0(tensor: Tensor, pattern: Tensor) -> Tensor:
    """Rank 0's whole tensor; where `pattern` is a part, this rank's part of it.

    Every rank must call it at the same time, with a tensor of that size on the device: what is in it counts on rank 0.
    """
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor, pattern.device_mesh, pattern.placements)
    dist.broadcast(tensor, src=0)
    return tensor


@torch.no_grad()
def gather_full_tensors(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Whole tensors, on the CPU where they had been in parts: no device has memory for all of them."""
    return {
        name: full_tensor(tensor.detach()).cpu() if isinstance(tensor, DTensor) else tensor.detach()
        for name, tensor in named
    }
