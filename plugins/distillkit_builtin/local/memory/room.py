"""How much memory a device has, and how much of it is free: of CUDA devices, and of this machine or its container."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from distillkit import DeviceMemory, PlannedDevice, Rank

CUDA_CONTEXT = 600 * 2**20
"""Bytes that CUDA takes for itself in a process; on this machine's card `check` has taken them already."""
CGROUPS = Path("/sys/fs/cgroup")
SELF = Path("/proc/self/cgroup")


def total_bytes(device: torch.device, planned: PlannedDevice | None) -> int:
    """All that a CUDA device has, or the card that the run is planned for."""
    return int(planned.total_bytes if planned else torch.cuda.get_device_properties(device).total_memory)


def device_memory(device: torch.device, rank: Rank, planned: PlannedDevice | None) -> DeviceMemory:
    """Of the device that a process of the run computes on, or of the card that it is planned for."""
    if device.type == "cuda" and planned is not None:
        total = planned.total_bytes
        return DeviceMemory(str(device), f"{planned.name}, planned", total, total - CUDA_CONTEXT)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return DeviceMemory(str(device), torch.cuda.get_device_name(device), total, free)
    if device.type == "mps":  # the memory is the machine's: a process may take more than is advised, and slow it down
        advised = torch.mps.recommended_max_memory()
        free = max(0, advised - torch.mps.driver_allocated_memory())
        return DeviceMemory(str(device), "Apple GPU", advised, free, is_limit=False)
    return host_memory(rank)


def host_memory(rank: Rank) -> DeviceMemory:
    """This machine's memory, or less where a container is given less; each of several processes' share."""
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    label = "this machine's memory"
    for limit, used in container_limits(CGROUPS, SELF):
        if limit < total:
            total, label = limit, "this container's memory (cgroup)"
        free = min(free, max(0, limit - used))
    if rank.local_count > 1:
        label = f"{label}, a share of {rank.local_count} processes"
    return DeviceMemory("cpu", label, total // rank.local_count, free // rank.local_count)


def container_limits(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Bytes that this process's cgroups may hold and do hold, of each that has a limit (version 2 and 1).

    A group's files stand at its path below `root`, and, inside a container, at `root` itself. What the page cache holds
    of files is taken away first when memory is short, so it is no use of memory.
    """
    try:
        lines = [line.split(":", 2) for line in membership.read_text(encoding="ascii").splitlines()]
    except OSError:
        return  # not Linux
    for _, controllers, path in lines:
        if controllers == "":
            yield from _limits(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _limits(root / "memory", path, *names)


def _limits(root: Path, path: str, limit: str, used: str, cache: str) -> Iterator[tuple[int, int]]:
    """Of a group and of all above it."""
    group = root / path.lstrip("/")
    for folder in dict.fromkeys([group, *group.parents, root]):
        if not folder.is_relative_to(root):
            continue
        allowed, held = _number(folder / limit), _number(folder / used)
        if allowed is not None and held is not None:
            yield allowed, max(0, held - _cached(folder / "memory.stat", cache))


def _number(path: Path) -> int | None:
    """What a file says, None without it and for `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _cached(path: Path, name: str) -> int:
    try:
        words = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return 0
    return next((int(word[1]) for word in words if word[0] == name), 0)
