"""A training step that failed, done again where that is sound: from saved state, on a new model of the same trainer.

After one submission that fails, the SDK's training client takes no more requests, and what the trainer holds by then
cannot be known: a step whose answer is lost may have been applied or not. So the model is given up, whatever it holds.
A new one is made on the same trainer and loads the state that was saved after the last step that ended, and the step is
done there once: none is lost, none is done twice. That needs such a state, as `Checkpoints.restore` has it: without one
(the last save is steps ago) the run ends, and `--resume` goes on from the last save.

It also needs that requests which still are under way cannot reach the new model. Those of a LoRA go to their own model;
a trainer of all weights has only one, so there the run ends too.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from distillkit.context import Notify
from distillkit.errors import RunFailedError
from distillkit_builtin.fireworks.blocking_calls import call_in_thread
from distillkit_builtin.fireworks.checkpoints import Checkpoints
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.sdk_errors import explain
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection
from distillkit_builtin.fireworks.trainer_watch import SUBMIT_SECONDS, TrainerWatch

UNLOAD_SECONDS = 60.0
RETRYABLE = (408, 409, 429)
"""The HTTP statuses below 500 that the SDK itself tries again."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """The student's trainer, and how to begin anew on it."""

    options: FireworksStudentOptions
    connection: TrainerConnection
    watch: TrainerWatch
    checkpoints: Checkpoints
    notify: Notify

    async def recover(self, error: RunFailedError) -> bool:
        """Put a new model in the place of one that failed, with the state that it had before the step.

        Returns:
            False where that is not sound or would not help, and nothing was done.

        Raises:
            RunFailedError: if the new model could not be made or loaded.
        """
        restore = self.checkpoints.restore
        if restore is None or not self.options.lora_rank or not is_transient(error) or not await self._is_running():
            return False
        self.notify(f"Fireworks: {explain(error.__cause__ or error)}; the step is done again on a new model", "warning")
        with contextlib.suppress(RunFailedError):  # its requests may hang; it is in nobody's way
            await call_in_thread("unloading the model", UNLOAD_SECONDS, self._unload)
        self.connection.client = await self.watch.call(
            "making a new model", self.options.timeouts.step + SUBMIT_SECONDS, self._new_client
        )
        await restore()
        return True

    async def _is_running(self) -> bool:
        with contextlib.suppress(RunFailedError):
            return await self.watch.state() == "RUNNING"
        return False

    def _unload(self) -> None:
        self.connection.client.unload_model().result(UNLOAD_SECONDS)

    def _new_client(self) -> object:
        return self.connection.new_client(self.options)


def is_transient(error: BaseException) -> bool:
    """Whether a request failed for a reason that another try may not meet: silence, the connection, the server."""
    from fireworks.training.sdk import APIConnectionError, APIStatusError, RequestFailedError

    for cause in _causes(error):
        if isinstance(cause, RequestFailedError):
            return str(cause.category.value) != "user"
        if isinstance(cause, APIStatusError):
            return cause.status_code >= 500 or cause.status_code in RETRYABLE
        if isinstance(cause, APIConnectionError | TimeoutError):
            return True
    return False


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
