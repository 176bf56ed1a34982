"""How sequences of a model may be computed together, which is proved on the device before the model is used."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Batching:
    """Which ways of computing several sequences at once give what each has alone; rows of one length always do."""

    left_padding: bool
    """Prompts of different lengths are padded on the left with a mask, and decoded so; else sampling takes those of
    one length together, without a mask."""
    right_padding: bool
    """Sequences of different lengths are padded on the right; else scoring and training take one length together."""
    shared_prefix: bool
    """What prompts begin with is computed once, and several tokens of each behind it."""

    def sampling_notes(self, name: str) -> Iterator[str]:
        """What the user is told where the model `name` samples in a plainer way."""
        if not self.left_padding:
            yield (
                f"{name}: prompts of different lengths are sampled in batches of one length: behind padding its "
                "numbers would not be those of a sequence alone"
            )

    def scoring_notes(self, name: str) -> Iterator[str]:
        """What the user is told where the model `name` scores in a plainer way."""
        if not self.shared_prefix:
            yield (
                f"{name}: what prompts begin with is computed for each of them: behind a shared beginning its numbers "
                "would not be those of a sequence alone"
            )
        if not self.right_padding:
            yield f"{name}: sequences are scored in batches of one length: {_BESIDE}"

    def training_notes(self, name: str) -> Iterator[str]:
        """What the user is told where the model `name` trains on padded sequences in a plainer way."""
        if not self.right_padding:
            yield f"{name}: sequences are trained in batches of one length: {_BESIDE}"


_BESIDE = "beside longer ones its numbers would not be those of a sequence alone"
TOGETHER = Batching(left_padding=True, right_padding=True, shared_prefix=True)
"""All ways, as most models allow."""
ONE_LENGTH = Batching(left_padding=False, right_padding=False, shared_prefix=False)
"""No way but rows of one length: of a model that was not proved."""
