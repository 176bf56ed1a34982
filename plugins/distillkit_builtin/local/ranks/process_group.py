"""The processes that torchrun started for one run, and how two of them pass each other objects."""

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

COMMAND_TIMEOUT = timedelta(days=365)
"""How long a rank waits for a command: rank 0 may be waiting for somebody else all that time."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process's rank, the number of ranks, and how they exchange objects."""

    rank: int
    count: int
    objects: dist.ProcessGroup
    """For Python objects, over gloo; gradients go through the default group, which is NCCL's on CUDA."""
    made_here: bool
    """Whether the default group was made by `join`; a script may have made it before."""

    @classmethod
    def join(cls, device: torch.device) -> "ProcessGroup":
        """Meet the other processes, which must all do the same; waits for them."""
        made_here = not dist.is_initialized()
        if made_here:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        objects = dist.new_group(backend="gloo", timeout=COMMAND_TIMEOUT)
        if not isinstance(objects, dist.ProcessGroup):
            raise RuntimeError("this process is not in its own process group")
        return cls(dist.get_rank(), dist.get_world_size(), objects, made_here)

    def send(self, rank: int, message: object) -> None:
        """Send an object. One thread a process may do this. Raises RuntimeError if that process is gone."""
        dist.send_object_list([message], dst=rank, group=self.objects)

    def receive(self, rank: int) -> object:
        """Wait for an object. One thread a rank may do this. Raises RuntimeError if that process is gone."""
        received: list[object] = [None]
        dist.recv_object_list(received, src=rank, group=self.objects)
        return received[0]

    def leave(self) -> None:
        """End this process's part, once the others are not needed any more."""
        if self.made_here and dist.is_initialized():
            dist.destroy_process_group()

    def abort(self) -> None:
        """A process is gone: end what waits for it on the device, where NCCL would wait for ever."""
        group = dist.group.WORLD
        if self.made_here and group is not None and hasattr(group, "abort"):
            group.abort()
