"""A CUDA graph on the CPU: operators are recorded as they run, and run again on the same tensors without Python."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedWork(TorchDispatchMode):
    """What `work` does; as of a CUDA graph nothing of it counts before `replay`."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.written: dict[int, tuple[Tensor, Tensor]] = {}
        with self:
            work()
        for whole, before in self.written.values():  # what the recording itself changed
            whole.copy_(before)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.is_write:
                self._remember(value)
        out = func(*args, **named)
        self.calls.append((func, args, named, out))
        return out

    def _remember(self, tensor: Tensor) -> None:
        """Keep what the storage of a tensor held before anything was written to it."""
        if _storage(tensor) not in self.written:
            whole = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())  # type: ignore[call-overload]
            self.written[_storage(tensor)] = (whole, whole.clone())

    def replay(self) -> None:
        """Run the operators again, on the tensors of the recording."""
        for func, args, named, out in self.calls:
            given = {_storage(each) for each in tree_leaves((args, named)) if isinstance(each, Tensor)}
            again = func(*args, **named)
            for home, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                # A view, or what was written in place, is there already; schemas leave open whether `reshape` copies.
                if isinstance(home, Tensor) and _storage(home) not in given:
                    home.copy_(new)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
