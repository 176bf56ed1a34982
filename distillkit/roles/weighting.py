"""Role `weighting`: how much each token counts."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from distillkit.arrays import FloatArray
from distillkit.records import ScoredRollout
from distillkit.roles.plugin import Plugin


class Weighting(Plugin):
    """Weighs the tokens of a step. A run has any number; they are multiplied, and with the normalization.

    The normalization counts tokens before any weighting, so that one that leaves tokens out makes the others no
    heavier.
    """

    role: ClassVar[str] = "weighting"

    def needs(self) -> Mapping[str, int]:
        """The capabilities that scorers must have for it, as `Loss.needs`."""
        return {}

    def sampler_needs(self) -> Mapping[str, int]:
        """What the sampler must give with each completion, as `Loss.sampler_needs`."""
        return {}

    @abstractmethod
    def weigh(self, step: Sequence[ScoredRollout]) -> Sequence[FloatArray]:
        """[R] for each completion of one optimizer step, in the order given: finite, and at least 0.

        Called in a worker thread. What stands where a completion's mask is False does not matter.
        """
