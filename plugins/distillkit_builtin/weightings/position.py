r"""More weight to the tokens whose prefix the teacher still agrees with.

For the active tokens t = 1..T of a completion with sampling logprob q_t and teacher logprob p_t (natural log):

    d_t = |p_t - q_t|
    F_t = sum_{k<t} d_k / sum_{k<=T} d_k         0 where all d_k are 0
    w_t = 1 + (most - 1) * (1 - F_t)

from `most` at a completion's first token, down to nearly 1 at its last. As a student's completion grows it leaves what
the teacher would write, and the teacher's signal there teaches less (Xie et al., "On the Position Bias of On-Policy
Distillation", 2026, arXiv:2606.22600: IW-OPD, as the authors' code computes it, where `most` is 1.5).
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import FloatArray, ScoredRollout, Weighting


class Position(Weighting):
    """More weight to early tokens, as far as student and teacher have not drifted apart before them."""

    name: ClassVar[str] = "position"

    most: float = Field(
        1.5, ge=1, description="Of a completion's first token; it falls to 1 as the gap to the teacher adds up."
    )

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion: between 1 and `most`."""
        return [self._weights(completion) for completion in step]

    def _weights(self, completion: ScoredRollout) -> FloatArray:
        active = completion.rollout.active
        gaps = np.abs(completion.teacher_logprobs[active].astype(np.float64) - completion.rollout.logprobs[active])
        before = np.cumsum(gaps) - gaps
        share = before / (gaps.sum() or 1.0)
        weights = np.zeros(len(active), np.float32)
        weights[active] = 1 + (self.most - 1) * (1 - share)
        return weights
