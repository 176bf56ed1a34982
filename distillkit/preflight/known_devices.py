"""Cards that a run can be planned for without having one: `distillkit check --device h100-80gb`."""

import re

from distillkit.errors import InputError, suggest
from distillkit.memory import PlannedDevice

MIB = 2**20
CARDS: dict[str, int] = {
    "t4-16gb": 15_360,
    "v100-16gb": 16_384,
    "v100-32gb": 32_768,
    "rtx3090-24gb": 24_576,
    "rtx4090-24gb": 24_564,
    "rtx5090-32gb": 32_607,
    "l4-24gb": 23_034,
    "a10-24gb": 23_028,
    "a10g-24gb": 23_028,
    "a6000-48gb": 49_140,
    "l40s-48gb": 46_068,
    "a100-40gb": 40_960,
    "a100-80gb": 81_920,
    "h100-80gb": 81_559,
    "h100-96gb": 97_871,
    "h200-141gb": 143_771,
    "b200-180gb": 183_359,
    "mi300x-192gb": 196_592,
}
"""MiB by name, as the makers' tools (nvidia-smi, rocm-smi) show them."""
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:gb|gib)", re.IGNORECASE)


def planned_device(name: str) -> PlannedDevice:
    """A card of the table, by its whole name or the part before its size where that says which; or one of so many GB.

    Raises:
        InputError: for a name that is neither.
    """
    wanted = name.strip().lower().replace("_", "-").replace(" ", "-")
    size = SIZE.fullmatch(name.strip())
    if size and float(size[1]) > 0:
        return PlannedDevice(name.strip(), int(float(size[1]) * 2**30))
    found = [card for card in CARDS if wanted in (card, card.partition("-")[0])]
    if len(found) == 1:
        return PlannedDevice(found[0], CARDS[found[0]] * MIB)
    if found:
        raise InputError(f"--device {name!r}: there is {' and '.join(found)}; name it with its size")
    raise InputError(f"--device {name!r}: {suggest(wanted, CARDS)}; or a size, such as 24gb")
