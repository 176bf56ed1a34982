"""The tokens that a server names at each position of a response, as arrays, and the most probable of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from distillkit.arrays import INT64, LOGPROB_ROUNDING, FloatArray, IntArray
from distillkit.errors import AlignmentError
from distillkit.token_arrays import NO_ID

MINUS_INFINITY = -9999.0
"""What vLLM sends in place of minus infinity, which JSON does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class TopK:
    """The most probable tokens of each position."""

    ids: IntArray
    """[R, K] in descending order of logprob."""
    logprobs: FloatArray
    """[R, K]"""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All tokens that a server names at each position: W at most, in any order."""

    ids: IntArray
    """[R, W] `NO_ID` where a position has fewer."""
    logprobs: npt.NDArray[np.float64]
    """[R, W] minus infinity where a position has fewer."""
    counts: IntArray
    """[R]"""

    @classmethod
    def of(cls, counts: Sequence[int], ids: Iterable[int], logprobs: Iterable[float]) -> Self:
        """`counts` tokens at each position, end to end in `ids` and `logprobs`."""
        many = np.array(counts, INT64)
        there = np.arange(many.max(initial=0))[None, :] < many[:, None]
        table, values = np.full(there.shape, NO_ID, INT64), np.full(there.shape, -np.inf)
        table[there] = np.fromiter(ids, INT64, int(many.sum()))
        values[there] = np.fromiter(logprobs, np.float64, int(many.sum()))
        return cls(table, values, many)

    def best(self, topk: int) -> TopK:
        """The `topk` of each position with the highest logprobs.

        Raises:
            AlignmentError: if there are fewer, one is there twice, or one's logprob is not one.
        """
        for at in np.flatnonzero(self.counts < topk):
            raise AlignmentError(
                f"the response holds {self.counts[at]} top-k tokens at token {at} where {topk} were expected"
            )
        possible = (self.logprobs > MINUS_INFINITY) & (self.logprobs <= LOGPROB_ROUNDING)  # NaN is neither
        for at, place in np.argwhere((self.ids != NO_ID) & ~possible):
            raise AlignmentError(
                f"the logprob of one of the top-k tokens at token {at} is {self.logprobs[at, place]:g}"
            )
        ordered = np.sort(self.ids, axis=1)
        for at, place in np.argwhere((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_ID)):
            raise AlignmentError(f"the response holds id {ordered[at, place]} twice among the top-k at token {at}")
        order = np.argsort(-self.logprobs, axis=1, kind="stable")[:, :topk]
        logprobs = np.take_along_axis(self.logprobs, order, axis=1)
        return TopK(np.take_along_axis(self.ids, order, axis=1), logprobs.astype(np.float32))
