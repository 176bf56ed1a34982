"""Arrays a token: what samplers and scorers give of more tokens than the sampled one, held to what was wanted."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from distillkit.arrays import FLOAT32, INT64, LOGPROB_ROUNDING, Array, BoolArray, IntArray, frozen_array
from distillkit.errors import AlignmentError

NO_ID = -1
"""Stands in a table of ids where a position has fewer of them than others."""


def require_arrays(what: object, arrays: Mapping[str, Array], active: BoolArray, wanted: Mapping[str, int]) -> None:
    """Raise AlignmentError about `what` unless it holds what is `wanted` of R tokens, in numbers where it is `active`.

    `topk: K` is `topk_ids` and `topk_logprobs` [R, K]; `entropy` is `entropy` [R]; any other capability is an array of
    its name.
    """
    count = len(active)
    for name, amount in wanted.items():
        if name == "topk":
            require_table(what, arrays, "topk_ids", (count, amount))
            if arrays["topk_ids"].dtype.kind not in "iu":
                raise AlignmentError(f"{what}: topk_ids are of {arrays['topk_ids'].dtype}, and ids are whole numbers")
            require_logprob_table(what, arrays, "topk_logprobs", (count, amount), active)
        elif name == "entropy":
            require_table(what, arrays, name, (count,))
            _refuse(what, arrays, name, active & ~np.isfinite(arrays[name]), "not a finite number")
        elif name not in arrays:
            raise AlignmentError(f"{what}: has no array {name!r}, which was wanted of it")


def require_logprob_table(
    what: object, arrays: Mapping[str, Array], name: str, shape: tuple[int, ...], active: BoolArray
) -> None:
    """Raise AlignmentError about `what` unless it holds logprobs [R, K]: at most 0 where `active`; -inf is none."""
    require_table(what, arrays, name, shape)
    wrong = active[:, None] & ~(arrays[name] <= LOGPROB_ROUNDING)  # NaN is not either
    _refuse(what, arrays, name, wrong, "no logprob")


def require_table(what: object, arrays: Mapping[str, Array], name: str, shape: tuple[int, ...]) -> None:
    """Raise AlignmentError about `what` unless it holds an array of that name and shape."""
    found = arrays.get(name)
    if found is None:
        raise AlignmentError(f"{what}: has no array {name!r}, which was wanted of it")
    if found.shape != shape:
        raise AlignmentError(f"{what}: {name} has the shape {list(found.shape)}, and {list(shape)} was wanted")


def _refuse(what: object, arrays: Mapping[str, Array], name: str, wrong: BoolArray, why: str) -> None:
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise AlignmentError(f"{what}: {name} of token {at[0]} holds {arrays[name][at]}, {why}")


def known_topk(arrays: Mapping[str, Array], size: int | None) -> Mapping[str, Array]:
    """`arrays` with `NO_ID` in the place of top-K ids that are not below `size`, as rows of a head without a token are.

    Of those nothing is trained: with the others they are what is outside of the K. None: nobody knows the size.
    """
    ids = arrays.get("topk_ids")
    if ids is None or size is None or not (unknown := ids >= size).any():
        return arrays
    logprobs = np.where(unknown, np.float32(-np.inf), arrays["topk_logprobs"])
    return {**arrays, "topk_ids": np.where(unknown, NO_ID, ids), "topk_logprobs": logprobs}


def id_table(what: object, ids: npt.ArrayLike, count: int) -> IntArray:
    """Read-only int64 ids [count, K]. Raises AlignmentError about `what` for any other shape."""
    table: IntArray = frozen_array(ids, INT64)
    if table.ndim != 2 or table.shape[0] != count:
        raise AlignmentError(f"{what}: ids of the shape {list(table.shape)} for {count} tokens, not [{count}, K]")
    return table


def most_probable(logprobs: npt.NDArray[np.float32], k: int) -> tuple[IntArray, npt.NDArray[np.float32]]:
    """Ids and logprobs [n, k] of the k most probable of distributions [n, V], the most probable first."""
    ids = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
    return frozen_array(ids, INT64), frozen_array(np.take_along_axis(logprobs, ids, axis=1))


def logprobs_at(logprobs: npt.NDArray[np.float32], ids: IntArray) -> npt.NDArray[np.float32]:
    """[n, K] those of distributions [n, V] at `ids` [n, K]; minus infinity where an id is none, or beyond V."""
    known = (ids >= 0) & (ids < logprobs.shape[1])
    found = np.take_along_axis(logprobs, np.where(known, ids, 0), axis=1)
    return frozen_array(np.where(known, found, np.float32(-np.inf)), FLOAT32)


def union_of_ids(tables: Sequence[IntArray]) -> IntArray:
    """[n, K] every id that stands in one of `tables` [n, K_i], once a position, in rising order, then `NO_ID`.

    K is the most that any position has. The order of the tables does not matter.
    """
    joined = np.sort(np.concatenate(tables, axis=1), axis=1)
    new = joined != NO_ID
    new[:, 1:] &= joined[:, 1:] != joined[:, :-1]
    rows, columns = np.nonzero(new)
    places = new.cumsum(axis=1) - 1
    union = np.full((len(joined), int(new.sum(axis=1).max(initial=0))), NO_ID, INT64)
    union[rows, places[rows, columns]] = joined[rows, columns]
    return frozen_array(union, INT64)
