"""What the local student gives the loss of a token to see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from torch import Tensor

from distillkit import PluginError


@dataclass(frozen=True, slots=True)
class SampledPositions:
    """Positions of a loss that reads the sampled tokens' logprobs alone: no distribution is ever there."""

    logprobs: Tensor
    """[n], float32, with gradient."""
    sampling_logprobs: Tensor
    """[n]."""
    inputs: Mapping[str, Tensor]
    """[n, ...] by name."""

    @property
    def student(self) -> NoReturn:
        """Not there."""
        raise _not_read("student", "`distribution` in reads()")

    @property
    def teacher(self) -> NoReturn:
        """Not there."""
        raise _not_read("teacher", "`full` in needs()")

    @property
    def entropy(self) -> NoReturn:
        """Not there."""
        raise _not_read("entropy", "`entropy` in reads()")

    def at(self, ids: Tensor) -> NoReturn:
        """Not there."""
        raise _not_read("at()", "`at_ids` in reads()")


def _not_read(name: str, says: str) -> PluginError:
    return PluginError(f"the loss reads positions.{name} without saying so: it must have {says}")
