"""What a GPU holds while another process works on it: everything, whoever allocated it, and in how many processes."""

import os
import threading
import time
from collections.abc import Callable
from itertools import takewhile
from types import TracebackType
from typing import Self

import torch

try:
    import pynvml
except ImportError:
    pynvml = None

INTERVAL = 0.02
"""Seconds. PyTorch and vLLM keep what they have allocated, so a peak lasts."""


def reader() -> Callable[[], float] | None:
    """Returns GiB in use on the fullest device that may be used, of all its processes; None without a GPU.

    By NVML, which holds nothing itself; without its package by CUDA, whose context is there before the first reading.
    """
    if not torch.cuda.is_available():
        return None
    if pynvml is None:
        return lambda: max(_used_by_cuda(index) for index in range(torch.cuda.device_count()))
    pynvml.nvmlInit()
    handles = [_handle(name) for name in _visible_devices()]
    return lambda: max(pynvml.nvmlDeviceGetMemoryInfo(handle).used for handle in handles) / 2**30


def _visible_devices() -> list[str]:
    """Numbers or names of the devices that processes may use here; others may be busy with something else."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    # CUDA reads them up to the first that is no device.
    return list(takewhile(lambda name: name and not name.startswith("-"), map(str.strip, chosen.split(","))))


def _handle(device: str) -> object:
    if device.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(device))
    return pynvml.nvmlDeviceGetHandleByUUID(device)


def _used_by_cuda(index: int) -> float:
    free, total = torch.cuda.mem_get_info(index)
    return (total - free) / 2**30


class HeldMemory:
    """The highest reading while the block runs, above what was held before anything was measured."""

    def __init__(self, read: Callable[[], float] | None, idle: float) -> None:
        """`idle` is a reading, GiB, of before."""
        self._read, self._idle = read, idle
        self._peak = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def gib(self) -> float | None:
        """None where nothing can be read."""
        return None if self._read is None else self._peak - self._idle

    def __enter__(self) -> Self:
        """Wait until a process before has let go, then watch."""
        if self._read is not None:
            begin = time.monotonic()
            while self._read() > self._idle + 0.1 and time.monotonic() - begin < 15:
                time.sleep(0.1)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._done.set()
        if self._read is not None:
            self._thread.join()

    def _watch(self) -> None:
        while self._read is not None and not self._done.is_set():
            self._peak = max(self._peak, self._read())
            self._done.wait(INTERVAL)
