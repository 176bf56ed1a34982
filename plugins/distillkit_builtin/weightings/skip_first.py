r"""Nothing for the first tokens of each completion.

    w_t = 0 for the first `tokens` active tokens of a completion, 1 for the others

For openings that are the same in every answer, or that a template should have written.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import FloatArray, ScoredRollout, Weighting


class SkipFirst(Weighting):
    """Leaves out the first tokens of each completion."""

    name: ClassVar[str] = "skip_first"

    tokens: int = Field(
        ge=1, description="How many: of those that the policy sampled. A completion of no more counts nothing."
    )

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion: 0, and 1 behind the first tokens."""
        return [(np.cumsum(each.rollout.active) > self.tokens).astype(np.float32) for each in step]
