"""Ids and top-k tokens out of what the SDK returns, as arrays, with all its gaps checked."""

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.arrays import Array
from distillkit.errors import AlignmentError
from distillkit_builtin.remote.candidates import Candidates

MOST_IDS = 2**31
"""No vocabulary is larger."""
MOST_CANDIDATES = 5
"""The largest `top_logprobs` that the service takes."""


def sdk_ids(what: str, values: Sequence[object]) -> list[int]:
    """The values, all of them ids. Raises AlignmentError, which begins with `what`."""
    ids = [value for value in values if type(value) is int and 0 <= value < MOST_IDS]
    if len(ids) != len(values):
        raise AlignmentError(f"{what}: what came back as an id is not one")
    return ids


def top_arrays(what: str, completion: Any, count: int, ours: slice, topk: int) -> Mapping[str, Array]:  # noqa: ANN401
    """The `topk` most probable tokens at the rows `ours` of an SDK's completion, which has `count` rows.

    Raises:
        AlignmentError: if a position has fewer, or the SDK gives none at all: one row without them is enough for that.
    """
    ids, logprobs = completion.inference_topk_token_ids, completion.inference_topk_logprobs
    if ids is None or logprobs is None:
        raise AlignmentError(f"{what}: the top-k tokens of a position are missing")
    if len(ids) != count or len(logprobs) != count:
        raise AlignmentError(f"{what}: the top-k tokens of {len(ids)} positions came back for {count}")
    rows, values = ids[ours], logprobs[ours]
    if [len(row) for row in rows] != [len(row) for row in values]:
        raise AlignmentError(f"{what}: a position has not as many top-k tokens as logprobs of them")
    named = sdk_ids(what, [index for row in rows for index in row])
    try:
        best = Candidates.of([len(row) for row in rows], named, (each for row in values for each in row)).best(topk)
    except AlignmentError as error:
        raise AlignmentError(f"{what}: {error}") from error
    return {"topk_ids": best.ids, "topk_logprobs": best.logprobs}
