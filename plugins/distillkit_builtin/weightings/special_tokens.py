r"""Another weight for special tokens.

    w_t = turn_end    where token t is an id that ends a completion (sampling.stop_ids and the model's own)
    w_t = weight      where it is any other special token of the student's tokenizer
    w_t = 1           elsewhere

Where two sides' templates use special tokens otherwise, the teacher's score of such a token is about the template and
not about the answer. What ends a turn counts in full by default: untrained, a student does not learn to end as its
teacher does.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from distillkit import FloatArray, RunContext, ScoredRollout, Weighting


class SpecialTokens(Weighting):
    """Special tokens of the student's tokenizer have a weight of their own, and what ends a turn another."""

    name: ClassVar[str] = "special_tokens"

    weight: float = Field(0.0, ge=0, description="Of special tokens that end no turn.")
    turn_end: float = Field(1.0, ge=0, description="Of the tokens that end a completion.")

    _special: tuple[int, ...] = PrivateAttr(())
    _ends: tuple[int, ...] = PrivateAttr(())

    async def open(self, run: RunContext) -> None:
        """Read the special tokens, and which ids end a completion."""
        if run.tokenizer is None:
            raise RuntimeError("opened without the student's tokenizer")
        self._special, self._ends = tuple(run.tokenizer.special_tokens().values()), run.stop_ids

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion: `turn_end`, `weight` or 1."""
        return [self._weights(completion) for completion in step]

    def _weights(self, completion: ScoredRollout) -> FloatArray:
        ids = completion.rollout.token_ids
        weights = np.where(np.isin(ids, self._special), np.float32(self.weight), np.float32(1))
        return np.where(np.isin(ids, self._ends), np.float32(self.turn_end), weights)
