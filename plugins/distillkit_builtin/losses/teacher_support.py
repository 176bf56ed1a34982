"""The ids at which student and teacher are compared, and what a row's teachers give them: arrays [R, K] of numpy.

Several teachers are one mixture of probabilities, `log sum_i w_i p_i` (`ScoredRollout.mixture`).
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from distillkit import NO_ID, AlignmentError, Array, Batch, IntArray, Score, ScoredRollout


def support(completion: ScoredRollout, which: str, k: int) -> Mapping[str, Array]:
    """`support_ids` [R, K'], each once at a position, and `support_logprobs` [R, K'] of the mixture; 0 at no id.

    An id that no teacher gives any probability is left out: with a tail it counts there. Raises AlignmentError where a
    teacher of several gave no logprob of an id.
    """
    ids = _ids(completion, which, k)
    logprobs = _mixture_at(completion, ids)
    lacking = (ids < 0) | np.isneginf(logprobs)
    return {
        "support_ids": np.where(lacking, NO_ID, ids),
        "support_logprobs": np.where(lacking, logprobs.dtype.type(0), logprobs),
    }


def first_occurrences(ids: IntArray) -> tuple[Array, Array]:
    """Of ids [R, M]: [R, M] True where a position has an id for the first time, and [R, M] where in [R * M] that is.

    NO_ID is an id here.
    """
    _, first, which = np.unique(_keys(ids, int(ids.max()) + 2), return_index=True, return_inverse=True)
    of_each = first[which].reshape(ids.shape)
    return of_each == np.arange(ids.size).reshape(ids.shape), of_each


def of_one_width(batch: Batch) -> Batch:
    """`batch` with tables of ids as wide as its widest: those of rows with several teachers are wider than of one."""
    widest = max((datum.inputs["support_ids"].shape[1] for datum in batch.datums), default=0)
    datums = tuple(replace(datum, inputs=_widened(datum.inputs, widest)) for datum in batch.datums)
    return replace(batch, datums=datums)


def _widened(inputs: Mapping[str, Array], widest: int) -> dict[str, Array]:
    fill = {"support_ids": NO_ID, "support_logprobs": 0}
    return {
        name: np.pad(array, ((0, 0), (0, widest - array.shape[1])), constant_values=fill[name])
        for name, array in inputs.items()
    }


def _ids(completion: ScoredRollout, which: str, k: int) -> IntArray:
    tables = []
    if which in ("teacher_topk", "union"):
        tables += [completion.scores[name].arrays["topk_ids"][:, :k] for name in _counting(completion)]
    if which in ("student_topk", "union"):
        tables.append(completion.rollout.arrays["topk_ids"][:, :k])
    if len(tables) == 1:
        return tables[0]
    ids = np.concatenate(tables, axis=1)
    return np.where(first_occurrences(ids)[0], ids, NO_ID)


def _counting(completion: ScoredRollout) -> Mapping[str, float]:
    return {name: weight for name, weight in completion.mixture.items() if weight > 0}


def _mixture_at(completion: ScoredRollout, ids: IntArray) -> Array:
    parts = [
        math.log(weight) + _logprobs_at(completion.scores[name], ids) for name, weight in _counting(completion).items()
    ]
    return parts[0] if len(parts) == 1 else np.logaddexp.reduce(parts)


def _logprobs_at(score: Score, ids: IntArray) -> Array:
    """[R, K] what a score says of `ids`, from all of its tables."""
    tables = []
    if "topk_ids" in score.arrays:
        tables.append((score.arrays["topk_ids"], score.arrays["topk_logprobs"]))
    if score.request.at_ids is not None:
        tables.append((score.request.at_ids, score.arrays["at_logprobs"]))
    for known, logprobs in tables:
        if np.array_equal(known[:, : ids.shape[1]], ids):  # as mostly: just what was asked for
            return logprobs[:, : ids.shape[1]]
    known, logprobs = (np.concatenate(columns, axis=1) for columns in zip(*tables, strict=True))
    return _looked_up(score, known, logprobs, ids)


def _looked_up(score: Score, known: IntArray, logprobs: Array, ids: IntArray) -> Array:
    span = int(max(known.max(), ids.max())) + 2
    keys, first = np.unique(_keys(known, span), return_index=True)
    wanted = _keys(ids, span)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = np.where(keys[at] == wanted, logprobs.reshape(-1)[first[at]], np.nan).reshape(ids.shape)
    lacking = np.isnan(found) & (ids >= 0) & score.request.rollout.active[:, None]
    if lacking.any():
        position, column = np.argwhere(lacking)[0]
        raise AlignmentError(
            f"{score}: has no logprob of id {ids[position, column]} at token {position}, which another of the row's "
            "teachers counts among its most probable; all of them must give at_ids"
        )
    return np.where(np.isnan(found), -np.inf, found).astype(logprobs.dtype)


def _keys(ids: IntArray, span: int) -> IntArray:
    """[R * M] one number for each position and id, where ids are less than `span - 1`."""
    keys: IntArray = (np.arange(len(ids))[:, None] * span + ids + 1).reshape(-1)
    return keys
