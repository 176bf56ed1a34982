"""Work that the host and the device wait for each other in: while it is done, no CUDA graph can be captured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError

READS = frozenset(
    {
        "_local_scalar_dense", "bincount", "equal", "grouped_mm_fallback", "is_nonzero", "masked_select", "nonzero",
        "_unique", "_unique2", "unique_consecutive", "unique_dim", "unique_dim_consecutive",
    }
)  # fmt: skip
"""Names of operators that give numbers to the host, or shapes that depend on numbers."""
INDEXING = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
"""These do where a mask says which elements are meant."""

MAKERS = frozenset({"as_tensor", "asarray", "new_tensor", "tensor"})
"""Names of functions that put numbers of Python into tensors."""


@contextmanager
def nothing_waits() -> Iterator[None]:
    """A context in which an operation that waits, or a function of torch, raises UnsupportedStepError."""
    with _HostWrites(), _HostReads():
        yield


class _HostReads(TorchDispatchMode):
    """Looks at operators: what gives numbers to the host, and copies."""

    def __init__(self) -> None:
        """Nothing is kept."""
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch has no public name for an operator's type
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator gives
        """Run `func`, unless the host waits for what it gives."""
        name = func._schema.name.rpartition("::")[2]
        named = dict(kwargs or {})
        repeats = name == "repeat_interleave" and isinstance(args[0], Tensor) and named.get("output_size") is None
        by_mask = name in INDEXING and any(_is_mask(index) for index in args[1]) and not _fills(args)
        if name in READS or by_mask or (repeats and func._overloadname == "Tensor"):
            raise UnsupportedStepError(f"a step of it reads numbers of the device ({name})")
        with self:  # in inference mode operators that are made of others come as they are
            out = func.decompose(*args, **named)
        if out is NotImplemented:
            out = func(*args, **named)
        if name in ("_to_copy", "copy_") and _crosses(out, args):
            raise UnsupportedStepError(f"a step of it copies numbers between host and device ({name})")
        return out


class _HostWrites(TorchFunctionMode):
    """Looks at functions that bring numbers of Python to the device: none of the operators inside shows that."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - any function of torch
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the function gives
        """Call `func`, and look at what it made of which numbers."""
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = [*args, *(kwargs or {}).values()]
        if name in MAKERS and out.device.type != "cpu" and not isinstance(given[name == "new_tensor"], Tensor):
            raise UnsupportedStepError(f"a step of it copies numbers between host and device ({name})")
        if name in ("__getitem__", "__setitem__") and args[0].device.type != "cpu" and _lists(args[1]):
            raise UnsupportedStepError("a step of it copies numbers between host and device (a list as index)")
        return out


def _lists(index: object) -> bool:
    """Whether an index has a list of numbers in it."""
    return any(isinstance(each, list) for each in (index if isinstance(index, tuple) else (index,)))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _fills(args: Sequence[Any]) -> bool:
    """Whether one number of the host is written wherever a mask says: PyTorch makes `masked_fill_` of that."""
    return len(args) > 2 and len(args[1]) == 1 and args[2].numel() == 1 and args[2].device.type == "cpu"


def _crosses(out: Tensor, args: Sequence[object]) -> bool:
    """Whether a copy waits for the host, or the host for it."""
    sources = [each for each in tree_leaves(args) if isinstance(each, Tensor)]
    return any(each.device != out.device and not (each.device.type == "cpu" and each.is_pinned()) for each in sources)
