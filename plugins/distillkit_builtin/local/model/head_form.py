"""What stands between the head's product and a model's logits: a scale, a soft cap, rows that are left out.

Architectures call these values by many names, multiply by some and divide by others of the same name. So the form is
found by comparing: of all forms that the config's values allow, the one that gives the model's own logits.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig

SCALES = ("scal", "multipl")
"""Parts of the names of values that logits may be multiplied with or divided by."""
CAPS = ("softcap", "soft_cap")
"""Parts of the names of values that logits may be capped by."""
ROWS = "unpadded_vocab_size"
"""The rows of the head that are tokens; the others give no logits."""


@dataclass(frozen=True, slots=True)
class HeadForm:
    """How logits come from what the head gives: `cap * tanh(scale * given / cap)`."""

    scale: float = 1.0
    softcap: float | None = None
    rows: int | None = None
    """How many of the head's rows give logits; None: all."""

    def logits(self, given: Tensor) -> Tensor:
        """Logits [n, vocabulary] of what the head gives [n, rows]."""
        logits = given if self.rows is None else given[..., : self.rows]
        logits = logits if self.scale == 1.0 else logits * self.scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    @classmethod
    def declared(cls, config: PreTrainedConfig) -> "HeadForm":
        """What the names alone say, of a text decoder's config."""
        multiplier = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
        divisor = getattr(config, "logits_scaling", None) or getattr(config, "logits_mup_width_multiplier", None)
        softcap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
        return cls(multiplier or 1.0 / (divisor or 1.0), softcap, getattr(config, ROWS, None))

    @classmethod
    def closest(cls, config: PreTrainedConfig, given: Tensor, logits: Tensor) -> "HeadForm":
        """The form that makes `logits` [n, vocabulary] of what the head gives; of equal ones what the names say."""
        forms = [cls.declared(config), *_forms(config)]
        fitting = [form for form in forms if form.logits(given).shape == logits.shape]
        return min(fitting or forms[:1], key=lambda form: form.distance(given, logits))

    def distance(self, given: Tensor, logits: Tensor) -> float:
        """The largest difference between the logits of this form and those of the model."""
        found = self.logits(given)
        return float((found.float() - logits.float()).abs().max()) if found.shape == logits.shape else torch.inf


def _forms(config: PreTrainedConfig) -> Iterator[HeadForm]:
    scales, caps = _values(config, SCALES), _values(config, CAPS)
    for rows in dict.fromkeys((None, getattr(config, ROWS, None))):
        for cap in (None, *caps):
            for scale in dict.fromkeys((1.0, *scales, *(1.0 / value for value in scales))):
                yield HeadForm(scale, cap, rows)


def _values(config: PreTrainedConfig, parts: Sequence[str]) -> list[float]:
    """The values above 0 whose names hold one of the parts, each once."""
    names = sorted(name for name in vars(config) if any(part in name for part in parts))
    values = [getattr(config, name) for name in names]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return [value for value in dict.fromkeys(numbers) if 0 < value < math.inf]
