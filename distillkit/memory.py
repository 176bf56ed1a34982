"""What a run's plugins will hold in memory, and what there is to hold it: values for `distillkit check`.

The engine adds up what all plugins say of a device: weights and caches of all, and the largest phase of one plugin
besides, since those that share a device take turns on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

GIB = 2**30
MemoryPart = Literal["weights", "caches", "loading", "sampling", "scoring", "training", "saving"]
"""When memory is held. `weights`: from the start to the end, and what cannot do with less (optimizer and gradients
too). `caches`: from the first step on, given up where memory runs out. The others: in that phase alone."""
SHARED_PARTS: tuple[MemoryPart, ...] = ("weights", "caches")
"""Those that are held in every phase."""


def gib(size: float) -> str:
    """Bytes in words."""
    if size >= 0.1 * GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / 2**10:.0f} KiB" if 0 < size < 2**20 else f"{size / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class PlannedDevice:
    """A card that a run is planned for, and which this machine may lack."""

    name: str
    """As the user names it, such as `h100-80gb`."""
    total_bytes: int
    """All that it has."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """The memory of a device, as far as this process may use it."""

    device: str
    """Its name in configs, such as `cuda:0` or `cpu`; what several plugins say of one device is added up."""
    label: str
    """What it is, in words."""
    total_bytes: int
    """All that it has."""
    free_bytes: int
    """What no other process holds now."""
    is_limit: bool = True
    """Whether more than `total_bytes` cannot be held; False: the system only advises against more."""

    @property
    def shown_total(self) -> str:
        """`79.6 GiB`, or `about 21.3 GiB` where that is no limit."""
        return f"{'' if self.is_limit else 'about '}{gib(self.total_bytes)}"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory that a plugin will hold on a device."""

    device: str
    """As `DeviceMemory.device`."""
    part: MemoryPart
    """When it is held."""
    what: str
    """In a few words, such as `activations of 16,384 tokens`."""
    size_bytes: int
    """At most."""


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """All that a plugin will hold, at most, by what is known before it is opened."""

    devices: tuple[DeviceMemory, ...]
    """Those that it uses."""
    uses: tuple[MemoryUse, ...]
    """Everything that is held; of one phase, what is held at once."""
    savers: tuple[Mapping[str, JsonValue], ...] = ()
    """Options that would lower it, each a change of one or several; the engine finds out by how much."""
