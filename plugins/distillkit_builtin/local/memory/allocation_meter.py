"""The bytes of all tensors that are alive, counted while code runs: on the CPU, and on the meta device without data."""

import weakref
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class AllocationMeter(TorchDispatchMode):
    """A context that sees every tensor that PyTorch makes in this thread, backward passes too.

    What was there before is not counted, nor what an operation takes inside of itself.
    """

    def __init__(self) -> None:
        """Nothing is alive."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.now = 0
        """Bytes that are alive."""
        self.peak = 0
        """Bytes that were alive at once, at most."""

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Do the operation, and count what it made."""
        result = func(*args, **(kwargs or {}))
        for each in tree_iter(result):
            if isinstance(each, Tensor):
                self._count(each.untyped_storage())
        return result

    def ignore(self, tensor: Tensor) -> None:
        """Do not count a tensor that was made before."""
        storage = tensor.untyped_storage()
        self._alive.setdefault(storage._cdata, weakref.ref(storage))

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive[key] = weakref.ref(storage, lambda _: self._forget(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        if self._alive.pop(key, None) is not None:
            self.now -= size
