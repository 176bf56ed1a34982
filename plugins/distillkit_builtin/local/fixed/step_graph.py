"""Work on the device that is recorded once and run again as it was, without Python in between."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

import torch


class StepGraph(Protocol):
    """Recorded work over tensors that stay where they are."""

    def replay(self) -> None:
        """Run it again."""
        ...


Capture = Callable[[Callable[[], None]], StepGraph]
"""Records what a function lets the device do; what it does is done at `replay`, or before that as well."""


class CudaCapture:
    """Records CUDA graphs, which share memory for what is computed on the way, until none of them is left."""

    def __init__(self) -> None:
        """No graph yet."""
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        """Those that are in use: their memory goes with the last of them."""
        self._stream: torch.cuda.Stream | None = None
        """Of the device that is used here: torch's own is of whichever device was the first."""

    def __call__(self, work: Callable[[], None]) -> StepGraph:
        """Record what `work` does; it has run before, so that whatever is built at the first time is there.

        Raises:
            torch.OutOfMemoryError: if there is too little memory for it, or for the graph itself.
            RuntimeError: if it does something that no graph can hold.
        """
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        other = next(iter(self._graphs), None)
        pool = torch.cuda.graph_pool_handle() if other is None else other.pool()
        self._stream = self._stream or torch.cuda.Stream()
        try:
            # Other threads may use the device meanwhile, for what has nothing to do with this.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                work()
        except RuntimeError as error:
            _end_allocating(stream.device_index, pool)
            if "out of memory" in str(error) and not isinstance(error, torch.OutOfMemoryError):
                raise torch.OutOfMemoryError(f"no memory for a CUDA graph: {error}") from error  # CUDA's own error
            raise
        finally:
            torch.cuda.set_stream(stream)  # which the context does not, where no graph came of it
        self._graphs.add(graph)
        return graph


def _end_allocating(device: int, pool: tuple[int, int]) -> None:
    """Let the allocator know that a capture has ended, which PyTorch does only where a graph came of it.

    Until then it would free no cached memory before it gives up for want of memory, and keep what other streams used.
    """
    with suppress(RuntimeError):  # it knows
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
