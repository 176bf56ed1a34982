"""What the figures were measured on, and what of it is fast in bfloat16."""

import os
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
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


def versions(*packages: str) -> str:
    """Those of the packages that are installed, in words."""
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def matrix_peak(device: str, dtype: str, repeats: int = 30) -> float:
    """Operations a second of the fastest of so many large products of two matrices, after two more."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / best(lambda: a @ b, device, repeats)


def best(work: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds of the fastest of so many calls, after two that may compile."""

    def timed() -> float:
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    return min([timed() for _ in range(2 + repeats)][2:])
