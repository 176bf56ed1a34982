"""The processes that torchrun started for one run: who they are, and how two of them pass each other objects."""

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

ORDERS_TIMEOUT = timedelta(days=365)
"""How long a rank waits for an order: rank 0 may be waiting for somebody else all that time."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among all of them."""

    rank: int
    count: int
    orders: dist.ProcessGroup
    """For objects, over gloo; gradients go through the default group, which is NCCL's on CUDA."""
    ours: bool
    """Whether the default group was made here; a script may have made it before."""

    @classmethod
    def join(cls, device: torch.device) -> "World":
        """Meet the other processes, which must all do the same; waits for them."""
        ours = not dist.is_initialized()
        if ours:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        orders = dist.new_group(backend="gloo", timeout=ORDERS_TIMEOUT)
        if not isinstance(orders, dist.ProcessGroup):
            raise RuntimeError("this process is none of its own group")
        return cls(dist.get_rank(), dist.get_world_size(), orders, ours)

    def send(self, rank: int, message: object) -> None:
        """Pass an object on. One thread a process may do this. Raises RuntimeError if that process is gone."""
        dist.send_object_list([message], dst=rank, group=self.orders)

    def receive(self, rank: int) -> object:
        """Wait for an object. One thread a rank may do this. Raises RuntimeError if that process is gone."""
        box: list[object] = [None]
        dist.recv_object_list(box, src=rank, group=self.orders)
        return box[0]

    def leave(self) -> None:
        """The others are not needed any more."""
        if self.ours and dist.is_initialized():
            dist.destroy_process_group()

    def abort(self) -> None:
        """A process is gone: end what waits for it on the device, where NCCL would wait for ever."""
        group = dist.group.WORLD
        if self.ours and group is not None and hasattr(group, "abort"):
            group.abort()
