"""The processes that torchrun started for one run, and how two of them pass each other objects."""

import platform
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from distillkit_builtin.local.ranks.script_names import know_names, script_names

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
    hosts: tuple[str, ...]
    """Of each rank, its host's name."""

    @classmethod
    def join(cls, device: torch.device) -> "ProcessGroup":
        """Meet the other processes, which must all do the same; waits for them.

        From then on they know each other's hosts, and scripts by each other's names.
        """
        made_here = not dist.is_initialized()
        if made_here:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        objects = dist.new_group(backend="gloo", timeout=COMMAND_TIMEOUT)
        if not isinstance(objects, dist.ProcessGroup):
            raise RuntimeError("this process is not in its own process group")
        met: list[tuple[str, dict[str, str]]] = [("", {})] * dist.get_world_size()
        dist.all_gather_object(met, (platform.node(), script_names()), group=objects)
        know_names(scripts for _, scripts in met)
        hosts = tuple(host for host, _ in met)
        return cls(dist.get_rank(), dist.get_world_size(), objects, made_here, hosts)

    def named(self, rank: int) -> str:
        """The rank as messages have it: `rank 1`, with its host where there are several."""
        return f"rank {rank}" if len(set(self.hosts)) == 1 else f"rank {rank} on {self.hosts[rank]}"

    @property
    def names(self) -> list[str]:
        """All ranks as messages have them, in their order."""
        return [self.named(rank) for rank in range(self.count)]

    def send(self, rank: int, message: object) -> None:
        """Send an object. One thread a process may do this. Raises RuntimeError if that process is gone."""
        dist.send_object_list([message], dst=rank, group=self.objects)

    def receive(self, rank: int) -> object:
        """Wait for an object. One thread a rank may do this.

        Raises RuntimeError if that process is gone, or sent something whose code is not here.
        """
        received: list[object] = [None]
        try:
            dist.recv_object_list(received, src=rank, group=self.objects)
        except (ImportError, AttributeError) as error:
            raise RuntimeError(f"a message of {self.named(rank)} cannot be read: {error}") from error
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
