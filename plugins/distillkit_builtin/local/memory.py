"""Out of memory on the device: the work is done again in smaller parts, which changes no number beyond rounding."""

import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from distillkit.errors import RunFailedError


@dataclass(slots=True)
class PartSize:
    """How much is computed at once; halved whenever the device has not enough memory for it."""

    size: int
    """Tokens, or completions."""
    unit: str
    option: str
    """What the user would have set to have it smaller from the start."""
    told: list[str] = field(default_factory=list)
    """What the user is to hear of, until somebody takes it."""

    def shrink(self, error: torch.OutOfMemoryError, least: int) -> None:
        """Halve, but not below `least`, which is one item. Raises RunFailedError if that is too much already."""
        if self.size <= least:
            raise RunFailedError(
                f"the device has not enough memory for even one completion at once ({self.option} is {self.size} "
                f"{self.unit} by now): {str(error).partition('.')[0]}; take a smaller model, shorter completions, or "
                "student.gradient_checkpointing"
            ) from error
        self.size = max(least, self.size // 2)
        self.told.append(
            f"out of memory on the device: done again with {self.size} {self.unit} at once; {self.option} sets that"
        )
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that there was no room beside
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def tell(self, notify: Callable[[str], None]) -> None:
        """Pass on what happened since the last call; from the event loop's thread, where sinks live."""
        told, self.told = self.told, []
        for message in told:
            notify(message)
