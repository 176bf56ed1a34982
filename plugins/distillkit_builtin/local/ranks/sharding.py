"""All weights trained where one device has not enough memory: every rank keeps a part of them (FSDP2).

A layer's weights are gathered in float32 when it computes, so that the numbers are those of a student that is whole.
See https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from distillkit_builtin.local.causal_lm import PromptAndResponse

Logprobs = Callable[[Sequence[PromptAndResponse]], Tensor]


class ShardedResponses(nn.Module):
    """The model as what FSDP2 calls and shards: from prompts with responses to the responses' logprobs."""

    def __init__(self, model: PreTrainedModel, logprobs: Logprobs) -> None:
        """`logprobs` computes with `model`."""
        super().__init__()
        self.model = model
        self._logprobs = logprobs

    def forward(self, items: Sequence[PromptAndResponse]) -> Tensor:
        """Float32 logprobs of the items' responses, end to end [R_1 + R_2 + ...]."""
        return self._logprobs(items)


def shard_model(model: PreTrainedModel, logprobs: Logprobs) -> ShardedResponses:
    """The model in shards, a decoder layer at a time; its parameters are DTensors from now on."""
    for layer in [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer)
    sharded = ShardedResponses(model, logprobs)
    fully_shard(sharded)
    return sharded


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all ranks' parts of it. Every rank must call it with the same one at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """A whole tensor on `pattern`'s device; this rank's part of it where `pattern` is one."""
    tensor = tensor.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor, pattern.device_mesh, pattern.placements)
    return tensor


@torch.no_grad()
def gather_full_tensors(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Whole tensors, on the CPU where they had been in parts: no device has memory for all of them."""
    return {
        name: full_tensor(tensor.detach()).cpu() if isinstance(tensor, DTensor) else tensor.detach()
        for name, tensor in named
    }
