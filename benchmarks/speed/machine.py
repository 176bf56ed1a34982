"""What the figures were measured on, and what of it is fast in bfloat16."""

import os
from pathlib import Path

import torch

FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Of a CPU's flags, those that the speed of matrix products depends on."""


def describe(device: str) -> str:
    """The device's model, and of a CPU how many cores this process may use and what they can do."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model, flags = _cpu()
    return f"{cores} cores of {model} ({', '.join(flag for flag in FEATURES if flag in flags) or 'flags unknown'})"


def fast_in(device: str, dtype: str) -> bool:
    """Whether a user of this machine would compute in `dtype`: a CPU without such instructions takes minutes for it."""
    if device == "cuda" or dtype == "float32":
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _cpu() -> tuple[str, frozenset[str]]:
    """Name and flags, where Linux tells them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return facts.get("model name", "an unnamed CPU"), frozenset(facts.get("flags", "").split())
