"""What a trainer writes into a checkpoint and takes back: trained weights, AdamW's moments, the schedule's step."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillkit_builtin.local.policy import Policy
from distillkit_builtin.local.ranks.sharding import gather_full_tensors, shard_like

FILE = "trainer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
SCHEDULER, TOTAL_STEPS = "scheduler", "total_steps"
"""Names of the two numbers in the file: how many steps were done, and how many the run was to have."""


def trainer_tensors(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Trained weights and moments by name, whole; where they are sharded, every rank must ask at the same time."""
    weights = [(f"weight/{name}", parameter) for name, parameter in policy.trained.items()]
    moments = [
        (f"{moment}/{name}", value)
        for name, parameter in policy.trained.items()
        for moment, value in optimizer.state[parameter].items()
    ]
    return gather_full_tensors([*weights, *moments])


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], steps_done: int, total_steps: int) -> None:
    """Write what `trainer_tensors` gave and both numbers of steps into the directory `folder`."""
    numbers = {SCHEDULER: torch.tensor(steps_done), TOTAL_STEPS: torch.tensor(total_steps)}
    save_file({name: tensor.contiguous() for name, tensor in {**tensors, **numbers}.items()}, folder / FILE)


def read_checkpoint(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> tuple[int, int | None]:
    """Set weights and moments to those that were written; returns both numbers of steps, the second if it is there."""
    tensors = load_file(folder / FILE)
    fused = bool(optimizer.defaults["fused"])
    with torch.no_grad():
        for name, parameter in policy.trained.items():
            parameter.copy_(shard_like(tensors[f"weight/{name}"], parameter))
            moments = {moment: tensors[f"{moment}/{name}"] for moment in MOMENTS if f"{moment}/{name}" in tensors}
            optimizer.state[parameter] = {
                moment: _as_optimizer_keeps(moment, value, parameter, fused=fused) for moment, value in moments.items()
            }
    total_steps = int(tensors[TOTAL_STEPS]) if TOTAL_STEPS in tensors else None
    return int(tensors[SCHEDULER]), total_steps


def _as_optimizer_keeps(moment: str, value: Tensor, parameter: Tensor, *, fused: bool) -> Tensor:
    """A moment on its weight's device, in parts as it is; `step` is there only if the optimizer is fused."""
    if moment == "step":
        return value.to(parameter.device if fused else "cpu")
    return shard_like(value, parameter)
