"""How much a token of a forecast counts."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from distillkit import FloatArray, ScoredRollout, Weighting


class DigitsWeighting(Weighting):
    """Digits have a weight of their own: a forecast is its numbers."""

    name: ClassVar[str] = "digits"

    weight: float = Field(2.0, ge=0, description="Of the bytes 0 to 9.")

    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """`weight` or 1."""
        digits = list(b"0123456789")
        ids = [each.rollout.token_ids for each in step]
        return [np.where(np.isin(each, digits), np.float32(self.weight), np.float32(1)) for each in ids]
