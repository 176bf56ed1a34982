"""A run whose loss has no gradient to speak of trains rounding, which an optimizer such as AdamW scales up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.records import ScoredRollout
from distillkit.significant import significant
from distillkit.training_data import StepResult

LOSS, NORM = "train/loss", "train/grad_norm"
FAR_BELOW = 1e-5
"""Of the loss: that of float32 rounding is near 1e-7 of it, a gradient of many tokens that cancel 1e-3 or more."""
UNLIKE = 1e-2
"""Nats a token, and of the loss: below, a student may be its teacher, and rightly be left without a gradient."""


@dataclass(slots=True)
class GradientMonitor:
    """Warns once of an optimizer step whose gradient is rounding, though loss and distance to the teachers are not."""

    warn: Callable[[str], None]
    _told: bool = field(default=False)

    def check(self, results: Sequence[StepResult], scored: Sequence[ScoredRollout]) -> None:
        """Look at what the student says of a step's optimizer steps, and at the completions that they trained on."""
        for result in results:
            loss, norm = result.metrics.get(LOSS), result.metrics.get(NORM)
            if self._told or loss is None or norm is None:
                return
            if norm < FAR_BELOW * abs(loss) and abs(loss) > UNLIKE and _apart(scored) > UNLIKE:
                self._told = True
                self.warn(
                    f"the loss has no gradient to speak of: {NORM} is {norm:.1e} where {LOSS} is "
                    f"{significant(loss)}, which is rounding, and an optimizer such as AdamW scales it up. Are its "
                    "weights detached, or all of it clamped? `distillkit plugins prove` shows it; said once"
                )


def _apart(scored: Sequence[ScoredRollout]) -> float:
    """Mean absolute difference of the logprobs of sampled tokens under the policy that sampled and the teachers."""
    gaps = [
        each.rollout.at_active(each.rollout.logprobs) - each.rollout.at_active(each.teacher_logprobs)
        for each in scored
        if each.scores
    ]
    laid = np.concatenate(gaps) if gaps else np.zeros(0)
    return float(np.abs(laid).mean()) if len(laid) else 0.0
