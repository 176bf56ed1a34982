"""The logprobs of a response behind its prompt, out of those of all the ids that were sent.

Servers differ: Tinker gives one entry an id, the first None, since nothing stands before it; SkyRL's JAX backend leaves
that one out. Either way the last R entries are those of the last R ids, which the list's length proves.
"""

from collections.abc import Sequence

import numpy as np

from distillkit.arrays import LOGPROB_ROUNDING, FloatArray, logprob_array
from distillkit.errors import AlignmentError


def response_logprobs(what: str, values: Sequence[float | None] | None, ids: int, response: int) -> FloatArray:
    """The logprobs [R] of the last `response` of `ids` ids that a server scored. Raises AlignmentError."""
    if values is None:
        raise AlignmentError(f"{what}: no logprobs came back")
    if len(values) not in (ids, ids - 1):
        raise AlignmentError(f"{what}: {len(values)} logprobs came back for {ids} ids, not {ids} or {ids - 1}")
    return checked_logprobs(what, values[len(values) - response :], response)


def checked_logprobs(what: str, values: Sequence[float | None] | None, count: int) -> FloatArray:
    """Logprobs [count], each there and possible. Raises AlignmentError."""
    if values is None:
        raise AlignmentError(f"{what}: no logprobs came back")
    if len(values) != count:
        raise AlignmentError(f"{what}: {len(values)} logprobs came back for {count} tokens")
    found = np.array([np.nan if value is None else value for value in values], np.float64)
    bad = np.flatnonzero(~(found <= LOGPROB_ROUNDING) | np.isneginf(found))
    if len(bad):
        raise AlignmentError(f"{what}: the logprob of token {bad[0]} is {values[bad[0]]}")
    return logprob_array(found)
