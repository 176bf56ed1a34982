"""Which device and number format a run computes on, and the one thread that does it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar

import torch

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.ranks import Rank
from distillkit_builtin.local.option_types import DTypeName

P = ParamSpec("P")
T = TypeVar("T")


class Cancelled(Exception):  # noqa: N818 - no error: nobody waits for the result
    """Work in the device's thread ends early, because its caller was cancelled, or the device closes."""


class Device:
    """A torch device and the single thread that uses it: student and teachers on one device take turns."""

    def __init__(self, device: torch.device) -> None:
        """Start the thread; nothing is allocated on the device."""
        self.device = device
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix=f"distillkit-{device}", initializer=self._select
        )
        self._closing = threading.Event()
        self._cancelled = threading.Event()
        """Of the work that the thread does now; each call of `run` has its own."""

    def _select(self) -> None:
        """Kernels run on the thread's current device, which is the first one unless another is set."""
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`, done in the device's thread, so that the event loop stays free.

        Cancelling this also ends `work`, at its next `raise_if_cancelled`. Raises what `work` raises.
        """
        cancelled = threading.Event()

        def call() -> T:
            self._cancelled = cancelled
            self.raise_if_cancelled()
            return work(*args, **kwargs)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def raise_if_cancelled(self) -> None:
        """What long work calls in the device's thread every so often. Raises Cancelled once it should stop."""
        if self._cancelled.is_set() or self._closing.is_set():
            raise Cancelled

    async def close(self) -> None:
        """End the thread: its work stops at the next `raise_if_cancelled`, work that waits is never begun."""
        self._closing.set()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)


def selected(device: torch.device) -> AbstractContextManager[object]:
    """A context whose kernels run on `device`, in the thread of another one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def shared_device(run: RunContext, name: str) -> Device:
    """The run's one `Device` for a name such as `auto`, `cpu` or `cuda:1`."""
    device = resolve_device(name, run.rank)
    return run.share(("device", str(device)), lambda: Device(device), Device.close)


def resolve_device(name: str, rank: Rank) -> torch.device:
    """The torch device of a name; `auto` is cuda, else mps, else cpu.

    Where torchrun started several processes, each takes the device of its number on its host.

    Raises:
        InputError: for a device that this machine lacks.
    """
    if rank.count > 1 and name not in ("auto", "cuda", "cpu"):
        raise InputError(f"device {name!r}: every process of torchrun takes a device of its own; use auto, cuda or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if rank.count > 1 and name == "cuda":
        name = f"cuda:{rank.local_index}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        known = "auto, cpu, cuda, cuda:N or mps" if rank.count == 1 else "auto, cuda where there are several, or cpu"
        raise InputError(f"device {name!r} cannot be used: {reason}. Use {known}") from error
    return device


def device_in_check(run: RunContext, name: str) -> torch.device:
    """The device of a name as `check` sees it: the card that the run is planned for, or this machine's.

    Raises:
        InputError: as `resolve_device`.
    """
    if run.planned_device is not None and name != "cpu":
        return torch.device("cuda")
    return resolve_device(name, run.rank)


def require_compilable(device: torch.device) -> None:
    """Raise InputError unless layers that are trained on the device can be compiled."""
    if device.type != "cuda":
        raise InputError(
            f"student.compile: always cannot be used on {device.type}, where the attention of packed sequences would "
            "be compiled anew for each set of lengths; take auto"
        )


def resolve_dtype(name: DTypeName, device: torch.device) -> torch.dtype:
    """The torch dtype of a name; `auto` is bfloat16 where the device computes fast in it, else float32."""
    if name != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[name]
    if device.type == "cuda":
        fast = not torch.cuda.is_available() or torch.cuda.is_bf16_supported()  # or a planned card
    else:
        fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if fast else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context that computes in `dtype` where weights are kept in float32; for float32 it does nothing."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)
