r"""Another weight for tokens that repeat what the completion says already.

Over the active tokens of a completion, laid end to end:

    w_t = weight    where token t is part of an n-gram (`ngram` tokens) that stood earlier in the completion
    w_t = 1         elsewhere: also where the n-gram stood for the first time

A student in a loop fills a step with tokens that say the same again and again. The metric `completions/repetition` is
about 4-grams, as the default here is.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import BoolArray, FloatArray, IntArray, ScoredRollout, Weighting


class Repetition(Weighting):
    """Tokens inside of n-grams that stood in the completion before have a weight of their own."""

    name: ClassVar[str] = "repetition"

    ngram: int = Field(4, ge=1, description="So many tokens in a row must have been there before.")
    weight: float = Field(0.0, ge=0, description="Of the tokens of such a repetition.")

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion: `weight` or 1."""
        return [self._weights(completion) for completion in step]

    def _weights(self, completion: ScoredRollout) -> FloatArray:
        active = completion.rollout.active
        weights = np.ones(len(active), np.float32)
        weights[active] = np.where(
            repeated(completion.rollout.at_active(completion.rollout.token_ids), self.ngram),
            np.float32(self.weight),
            np.float32(1),
        )
        return weights


def repeated(ids: IntArray, ngram: int) -> BoolArray:
    """[n] whether each token is part of an n-gram that stood before."""
    inside = np.zeros(len(ids), np.bool_)
    if len(ids) < ngram:
        return inside
    grams = np.lib.stride_tricks.sliding_window_view(ids, ngram)
    _, first, which = np.unique(grams, axis=0, return_index=True, return_inverse=True)
    for start in np.flatnonzero(first[which.reshape(-1)] < np.arange(len(grams))):
        inside[start : start + ngram] = True
    return inside
