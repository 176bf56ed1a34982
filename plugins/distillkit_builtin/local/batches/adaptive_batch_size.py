"""Out of memory on the device: the work is done again in smaller batches, which changes no number beyond rounding."""

import gc
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from distillkit.context import Notify
from distillkit.errors import RunFailedError


def default_batch_size(device: torch.device, on_cuda: int, elsewhere: int) -> int:
    """The batch size of this device where the user sets none."""
    return on_cuda if device.type == "cuda" else elsewhere


@dataclass(slots=True)
class AdaptiveBatchSize:
    """How much is computed at once; halved whenever the device has not enough memory for it."""

    size: int
    """Tokens, or completions."""
    unit: str
    option: str
    """The option by which the user would have set it smaller from the start."""
    free_caches: Callable[[], bool] = lambda: False
    """Frees memory that only saves time, and returns whether there was any; called before anything is halved."""
    messages: list[str] = field(default_factory=list)
    """For the user, until `report` passes them on."""

    def shrink(self, error: torch.OutOfMemoryError, minimum: int) -> None:
        """Halve the size after `error`, but not below `minimum`, which is one item.

        Raises:
            RunFailedError: if `minimum` is too much already.
        """
        if self.free_caches():
            self._free(error)
            return
        if self.size <= minimum:
            raise RunFailedError(
                f"the device has not enough memory for even one completion at once ({self.option} is {self.size} "
                f"{self.unit} by now): {str(error).partition('.')[0]}; take a smaller model, shorter completions, or "
                "student.gradient_checkpointing"
            ) from error
        self.size = max(minimum, self.size // 2)
        self.messages.append(
            f"out of memory on the device: done again with {self.size} {self.unit} at once; {self.option} sets that"
        )
        self._free(error)

    def _free(self, error: torch.OutOfMemoryError) -> None:
        traceback.clear_frames(error.__traceback__)  # they hold the tensors beside which there was no memory left
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def report(self, notify: Notify) -> None:
        """Pass on what happened since the last call; from the event loop's thread, where sinks live."""
        messages, self.messages = self.messages, []
        for message in messages:
            notify(message, "warning")
