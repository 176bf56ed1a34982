"""Read-only numpy arrays: token ids are int64, logprobs float32 in natural log."""

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


FloatArray = npt.NDArray[np.float32]


BoolArray = npt.NDArray[np.bool_]


Array = npt.NDArray[Any]


INT64, FLOAT32, BOOL = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)
"""Compared with an array's dtype four times as fast as the classes are."""


def frozen_array(values: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """A read-only one-dimensional copy of `values` (or `values` itself, if it is that already)."""
    if isinstance(values, np.ndarray) and values.dtype == dtype and not values.flags.writeable:
        return values
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def all_true(count: int) -> BoolArray:
    """A read-only [count] of True: a part of an array that is kept, since every completion asks for one many times."""
    return _trues(1 << count.bit_length())[:count]


@lru_cache
def _trues(count: int) -> BoolArray:
    """Asked for powers of two alone, so there are few of them, and together they are twice the longest."""
    trues: BoolArray = frozen_array(np.ones(count), BOOL)
    return trues


def freeze(value: object, **dtypes: npt.DTypeLike) -> None:
    """Replace the named fields of a frozen value, where they are not None, by read-only arrays."""
    for name, dtype in dtypes.items():
        array = getattr(value, name)
        if array is not None:
            object.__setattr__(value, name, frozen_array(array, dtype))


def token_ids(values: npt.ArrayLike) -> IntArray:
    """Read-only int64 token ids, shape [n]."""
    return frozen_array(values, INT64)


def logprob_array(values: npt.ArrayLike) -> FloatArray:
    """Read-only float32 natural-log probabilities, shape [n]."""
    return frozen_array(values, FLOAT32)
