"""What is left behind by a graph, and by one that could not be captured; CUDA is stood in for."""

import gc
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest
import torch

from distillkit_builtin.local.fixed.step_graph import CudaCapture


class Graph:
    """A graph that has the pool that it is captured into."""

    def __init__(self) -> None:
        self.own: tuple[int, int] | None = None

    def pool(self) -> tuple[int, int] | None:
        return self.own


class Stream:
    device_index = 3


class Cuda:
    """What was done, by what PyTorch calls it."""

    def __init__(self) -> None:
        self.ends: Exception | None = None
        """What the end of a capture raises."""
        self.pools: list[tuple[int, int]] = []
        self.stream = self.first = Stream()
        self.ended: list[tuple[int, tuple[int, int]]] = []
        self.released: list[tuple[int, tuple[int, int]]] = []

    def handle(self) -> tuple[int, int]:
        self.pools.append((0, len(self.pools) + 1))
        return self.pools[-1]

    def set_stream(self, stream: Stream) -> None:
        self.stream = stream

    def context(self, graph: Graph, pool: tuple[int, int], stream: Stream, capture_error_mode: str) -> Any:
        assert capture_error_mode == "thread_local"
        return Capturing(self, graph, pool, stream)


class Capturing:
    """`torch.cuda.graph`, which leaves its stream in place where the capture does not end well."""

    def __init__(self, cuda: Cuda, graph: Graph, pool: tuple[int, int], stream: Stream) -> None:
        self.cuda, self.graph, self.own, self.stream = cuda, graph, pool, stream

    def __enter__(self) -> None:
        self.before, self.cuda.stream = self.cuda.stream, self.stream

    def __exit__(self, kind: object, error: BaseException | None, where: TracebackType | None) -> None:
        if self.cuda.ends is not None:
            raise self.cuda.ends
        self.graph.own, self.cuda.stream = self.own, self.before


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found = Cuda()
    for name, value in {
        "CUDAGraph": Graph, "Stream": Stream, "graph_pool_handle": found.handle, "graph": found.context,
        "current_stream": lambda: found.stream, "set_stream": found.set_stream,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    for name, done in (("_cuda_endAllocateToPool", found.ended), ("_cuda_releasePool", found.released)):
        monkeypatch.setattr(torch._C, name, lambda *args, done=done: done.append(args), raising=False)
    return found


def test_graphs_share_memory_which_goes_with_the_last_of_them(cuda: Cuda) -> None:
    capture = CudaCapture()
    first, second = capture(lambda: None), capture(lambda: None)
    del first
    third = capture(lambda: None)
    assert cuda.pools == [(0, 1)]
    del second, third
    gc.collect()
    kept: Any = capture(lambda: None)
    assert cuda.pools == [(0, 1), (0, 2)], "what the capture keeps holds no memory"
    assert kept.pool() == (0, 2)
    assert cuda.ended == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (RuntimeError("operation failed due to a previous error during capture"), RuntimeError),
        (RuntimeError("CUDA error: out of memory"), torch.OutOfMemoryError),
    ],
)
def test_a_capture_that_fails_leaves_stream_and_allocator_as_they_were(
    cuda: Cuda, error: Exception, raised: type[Exception]
) -> None:
    cuda.ends = error
    capture = CudaCapture()
    with pytest.raises(RuntimeError) as caught:
        capture(lambda: None)
    assert caught.type is raised
    assert cuda.stream is cuda.first
    assert cuda.ended == cuda.released == [(3, (0, 1))]
    cuda.ends = None
    kept: Any = capture(lambda: None)
    assert kept.pool() == (0, 2)


def test_what_the_allocator_knows_already_is_no_error(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    def known(*_: object) -> None:
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")

    def work() -> None:
        raise torch.OutOfMemoryError("too little")

    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", known)
    run: Callable[[], object] = lambda: CudaCapture()(work)  # noqa: E731 - the one statement that raises
    with pytest.raises(torch.OutOfMemoryError, match="too little"):
        run()
    assert cuda.released == []
