r"""Another weight for completions that were cut.

    w_t = weight    in a completion that ended at `sampling.max_completion_tokens`
    w_t = 1         in one that ended by itself

What a teacher thinks of an answer that never ends says little about answers; other trainers call it masking truncated
completions. Where all are cut, as in a young student's first steps, nothing is left to train: `weights/kept_fraction`.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import FloatArray, ScoredRollout, Weighting


class Truncated(Weighting):
    """Completions that were cut at the limit have a weight of their own."""

    name: ClassVar[str] = "truncated"

    weight: float = Field(0.0, ge=0, description="Of every token of such a completion.")

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion: `weight` or 1."""
        rollouts = [completion.rollout for completion in step]
        return [
            np.full(len(rollout.token_ids), self.weight if rollout.finish_reason == "length" else 1, np.float32)
            for rollout in rollouts
        ]
