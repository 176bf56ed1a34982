"""What a trainer writes into a checkpoint and takes back: trained weights, AdamW's moments, the schedule's step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillkit_builtin.local.model.sharding import from_rank_0, gather_full_tensors
from distillkit_builtin.local.training.policy import Policy

FILE = "trainer.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")
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


@dataclass(frozen=True, slots=True)
class SavedTrainer:
    """What a checkpoint holds, as rank 0 read it; for other ranks, whose disks may not have it, without tensors."""

    steps_done: int
    total_steps: int | None
    """Optimizer steps that the run was to have; None in a checkpoint that does not say."""
    counts: Mapping[str, float]
    """Of each weight that has moments, by name, how often the optimizer moved it."""
    tensors: Mapping[str, Tensor] | None
    """Trained weights and moments by name, whole, on the CPU; None: rank 0 has them."""
    shared: bool = False
    """Whether other ranks take it at the same time."""


def read_checkpoint(folder: Path, policy: Policy) -> SavedTrainer:
    """What was written into `folder`. Raises KeyError where a weight of the policy is not there."""
    tensors = load_file(folder / FILE)
    for name in policy.trained:
        tensors[f"weight/{name}"]  # before others wait for it
    counts = {name: float(tensors[f"step/{name}"]) for name in policy.trained if f"step/{name}" in tensors}
    total_steps = int(tensors[TOTAL_STEPS]) if TOTAL_STEPS in tensors else None
    return SavedTrainer(int(tensors[SCHEDULER]), total_steps, counts, tensors)


@torch.no_grad()
def take_checkpoint(saved: SavedTrainer, policy: Policy, optimizer: torch.optim.Optimizer) -> None:
    """Set weights and moments to those that were saved; several ranks do this at once, and take rank 0's."""
    for name, parameter in policy.trained.items():
        parameter.copy_(_taken(saved, f"weight/{name}", parameter))
        if name not in saved.counts:
            optimizer.state[parameter] = {}
            continue
        device = parameter.device if optimizer.defaults["fused"] else "cpu"
        optimizer.state[parameter] = {
            **{moment: _taken(saved, f"{moment}/{name}", parameter) for moment in MOMENTS},
            "step": torch.tensor(saved.counts[name], dtype=torch.float32, device=device),
        }


def _taken(saved: SavedTrainer, name: str, pattern: Tensor) -> Tensor:
    """A tensor of the checkpoint as `pattern` is kept: on its device, and this rank's part where that is one."""
    if saved.tensors is None:
        whole = torch.empty(pattern.shape, dtype=pattern.dtype, device=pattern.device)
    else:
        whole = saved.tensors[name].to(pattern.device, pattern.dtype)
    return from_rank_0(whole, pattern) if saved.shared else whole
