"""Work on the device that is recorded once and run again as it was, without Python in between."""

from collections.abc import Callable
from typing import Protocol

import torch


class StepGraph(Protocol):
    """Recorded work over tensors that stay where they are."""

    def replay(self) -> None:
        """Run it again."""
        ...


Capture = Callable[[Callable[[], None]], StepGraph]
"""Records what a function lets the device do; what it does is done at `replay`, or before that as well."""


class CudaCapture:
    """Records CUDA graphs, which share memory for what is computed on the way."""

    def __init__(self) -> None:
        """No graph yet."""
        self._last: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None
        """Of the device that is used here: torch's own is of whichever device was the first."""

    def __call__(self, work: Callable[[], None]) -> StepGraph:
        """Record what `work` does; it has run before, so that whatever is built at the first time is there.

        Raises:
            RuntimeError: if it does something that no graph can hold.
        """
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        pool = None if self._last is None else self._last.pool()
        self._stream = self._stream or torch.cuda.Stream()
        try:
            # Other threads may use the device meanwhile, for what has nothing to do with this.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                work()
        finally:
            torch.cuda.set_stream(stream)  # which the context does not, where no graph came of it
        self._last = graph
        return graph
