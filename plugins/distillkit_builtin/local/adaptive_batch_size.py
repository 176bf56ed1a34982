"""Out of memory on the device: the work is done again in smaller parts, which changes no number beyond rounding."""

import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from distillkit.errors import RunFailedError


def tokens_at_once(device: torch.device, on_cuda: int, elsewhere: int) -> int:
    """How many tokens are computed at once where the user does not say; where there is no room, it will be fewer."""
    return on_cuda if device.type == "cuda" else elsewhere


@dataclass(slots=True)
class PartSize:
    """How much is computed at once; halved whenever the device has not enough memory for it."""

    size: int
    """Tokens, or completions."""
    unit: str
    option: str
    """What the user would have set to have it smaller from the start."""
    spare: Callable[[], bool] = lambda: False
    """Lets go of memory that only saves time, and says whether there was any; asked before anything is halved."""
    told: list[str] = field(default_factory=list)
    """What the user is to hear of, until somebody takes it."""

    def shrink(self, error: torch.OutOfMemoryError, least: int) -> None:
        """Halve, but not below `least`, which is one item. Raises RunFailedError if that is too much already."""
        if self.spare():
            self._free(error)
            return
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
        self._free(error)

    def _free(self, error: torch.OutOfMemoryError) -> None:
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that there was no room beside
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def tell(self, notify: Callable[[str], None]) -> None:
        """Pass on what happened since the last call; from the event loop's thread, where sinks live."""
        told, self.told = self.told, []
        for message in told:
            notify(message)
