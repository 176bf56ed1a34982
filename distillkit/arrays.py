"""Read-only numpy arrays: token ids are int64, logprobs float32 in natural log."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from distillkit.errors import AlignmentError
from distillkit.frozen import FrozenDict

IntArray = npt.NDArray[np.int64]
"""Token ids."""


FloatArray = npt.NDArray[np.float32]
"""Logprobs, in natural log."""


BoolArray = npt.NDArray[np.bool_]
"""A mask."""


Array = npt.NDArray[Any]
"""An array of any numbers."""


INT64, FLOAT32, BOOL = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)
"""Compared with an array's dtype four times as fast as the classes are."""


def frozen_array(values: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> Array:
    """A read-only copy of `values` as `dtype` (None: as they are), or `values` itself if nobody can change it.

    Raises AlignmentError where token ids (int64) are requested and fractions are given.
    """
    if type(values) is np.ndarray and (dtype is None or values.dtype == dtype):
        if _is_read_only(values):
            return values
        array = values.copy()  # in less than half of the time of `np.array`
    else:
        if dtype is INT64:
            _require_whole(np.asarray(values))
        array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def _is_read_only(array: Array) -> bool:
    """Whether it can be changed neither by itself nor through the array that it is a part of."""
    if array.flags.writeable:
        return False
    base = array.base
    return base is None or not (isinstance(base, np.ndarray) and base.flags.writeable)


def _require_whole(ids: Array) -> None:
    if ids.dtype.kind not in "iub" and not np.array_equal(ids, np.round(ids)):
        raise AlignmentError(f"token ids are whole numbers, and {ids.dtype} with fractions was given")


def all_true(count: int) -> BoolArray:
    """A read-only [count] of True: a part of an array that is kept, since every completion asks for one many times."""
    return _trues(1 << count.bit_length())[:count]


@lru_cache
def _trues(count: int) -> BoolArray:
    """Asked for powers of two alone, so there are few of them, and together they are twice the longest."""
    trues: BoolArray = frozen_array(np.ones(count), BOOL)
    return trues


def freeze_arrays(value: object, **dtypes: npt.DTypeLike) -> None:
    """Replace the named fields of a frozen value, where they are not None, by read-only arrays of one axis.

    Raises AlignmentError, naming the field, for an array of more axes or none.
    """
    for name, dtype in dtypes.items():
        given = getattr(value, name)
        if given is None:
            continue
        array = frozen_array(given, dtype)
        if array.ndim != 1:
            raise AlignmentError(f"{type(value).__name__}.{name} has the shape {array.shape}, not one axis of tokens")
        if array is not given:
            object.__setattr__(value, name, array)


def freeze_inputs(value: object, field: str, count: int) -> None:
    """Replace a frozen value's field, arrays by name, by read-only arrays [count, ...] in a read-only mapping.

    Raises AlignmentError, naming value and array, for one that is not of `count` tokens or not of numbers.
    """
    given: Mapping[str, npt.ArrayLike] = getattr(value, field)
    made = {name: frozen_array(values) for name, values in given.items()}
    for name, array in made.items():
        shape = array.shape
        if not shape or shape[0] != count:
            raise AlignmentError(f"{value}: {field}[{name!r}] has the shape {shape} for {count} tokens")
        if array.dtype.kind not in "fiub":
            raise AlignmentError(f"{value}: {field}[{name!r}] is of {array.dtype}, not of numbers")
    object.__setattr__(value, field, FrozenDict(made))


def token_ids(values: npt.ArrayLike) -> IntArray:
    """Read-only int64 token ids, shape [n]. Raises AlignmentError for numbers that are not whole."""
    return frozen_array(values, INT64)


def logprob_array(values: npt.ArrayLike) -> FloatArray:
    """Read-only float32 natural-log probabilities, shape [n]."""
    return frozen_array(values, FLOAT32)


LOGPROB_ROUNDING = 1e-2
"""How far above 0 the logprob of a certain token may be rounded, in bfloat16."""


def require_logprobs(what: object, logprobs: FloatArray, count: int, mask: BoolArray | None) -> None:
    """Raise AlignmentError about `what` unless there is one finite logprob of at most 0 for each active token.

    `mask` [count] says which are active; None: all.
    """
    right = np.isfinite(logprobs) & (logprobs <= LOGPROB_ROUNDING)
    if mask is None and np.count_nonzero(right) == len(right) == count:  # as nearly always
        return
    active = all_true(count) if mask is None else mask
    if len(logprobs) != count or len(active) != count:
        raise AlignmentError(f"{what}: {len(logprobs)} logprobs and a mask of {len(active)} for {count} tokens")
    wrong = active > right
    if not np.count_nonzero(wrong):
        return
    bad = np.flatnonzero(active & ~np.isfinite(logprobs))
    if bad.size:
        raise AlignmentError(f"{what}: the logprob of token {bad[0]} is {logprobs[bad[0]]}, not a finite number")
    at = np.flatnonzero(wrong)[0]
    raise AlignmentError(f"{what}: the logprob of token {at} is {logprobs[at]}, a probability of more than one")


def require_same_ids(what: object, sampled: IntArray, echoed: IntArray) -> None:
    """Raise AlignmentError about `what`, with the first difference, unless `echoed` ids are the `sampled` ones."""
    if len(sampled) != len(echoed):
        raise AlignmentError(f"{what}: {len(echoed)} ids came back for {len(sampled)} tokens")
    differs = sampled != echoed
    if not np.count_nonzero(differs):  # in a third of the time of `np.array_equal`
        return
    at = int(np.flatnonzero(differs)[0])
    raise AlignmentError(f"{what}: token {at} is id {echoed[at]}, not the sampled {sampled[at]}")
