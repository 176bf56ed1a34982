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

        Called in a worker thread, while the plugin is open. It depends on the step alone, so the same step is weighed
        the same. Where a completion's mask is False, what is given does not matter, and numbers of the completion are
        no numbers (NaN): `rollout.at_active(array)` leaves them out. With `train.num_substeps` a step is one of those.
        """
