"""How a token is sampled, with all that servers have beside distillkit's own parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from distillkit.types import SamplingParams

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SamplingFields(SamplingParams):
    """distillkit's parameters, and those that it never uses and a server's defaults may."""

    min_p: float = 0.0
    """Leaves out tokens with less than this fraction of the best one's probability; 0 leaves out none."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of tokens of prompt and completion, and multiplies the negative ones."""
    presence_penalty: float = 0.0
    """Is taken from the logit of every token of the completion."""
    frequency_penalty: float = 0.0
    """Likewise, as often as the token is there."""

    @classmethod
    def of(cls, params: SamplingParams) -> Self:
        """The same parameters, with none of those beside them."""
        if isinstance(params, cls):
            return params
        names = SamplingParams.__dataclass_fields__
        return cls(**{name: getattr(params, name) for name in names})

    @property
    def penalizes(self) -> bool:
        """Whether logits depend on which tokens came before, beyond what the model makes of them."""
        return self.repetition_penalty != 1.0 or bool(self.presence_penalty or self.frequency_penalty)

    def penalized(self, logits: Numbers, prompt: Sequence[int], sampled: Sequence[int]) -> Numbers:
        """[vocabulary] the logits as vLLM penalizes them."""
        changed = logits.astype(np.float64)
        seen = np.unique(np.asarray([*prompt, *sampled], np.int64))
        taken = changed[seen]
        changed[seen] = np.where(taken > 0, taken / self.repetition_penalty, taken * self.repetition_penalty)
        for token in sampled:
            changed[token] -= self.frequency_penalty
        changed[np.unique(np.asarray(sampled, np.int64))] -= self.presence_penalty
        return changed
