"""Requests to the trainer: blocking calls with a time-out, and a look at whether the trainer still lives meanwhile.

The SDK waits for a result for ever, so a trainer that died shows as nothing but silence.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from distillkit.errors import RunFailedError
from distillkit_builtin.fireworks.blocking_calls import call_in_thread
from distillkit_builtin.fireworks.control_plane import ControlPlane
from distillkit_builtin.fireworks.sdk_errors import explain

T = TypeVar("T")
LOOK_SECONDS = 60.0
SUBMIT_SECONDS = 600.0
"""A submission is retried by the SDK for up to six minutes before its result can be waited for."""
ALIVE = ("RUNNING", "CREATING", "PENDING", "")
POISONED = "request sequence failed"


@dataclass(frozen=True, slots=True)
class TrainerWatch:
    """One trainer job, asked through the SDK and looked at through the control plane."""

    base_url: str
    job: str
    timeout: float
    """Seconds for one result."""

    async def wait_for_result(self, what: str, submit: Callable[[], Any]) -> Any:  # noqa: ANN401 - the SDK's response
        """Submit something and wait for its future."""
        return await self.call(what, self.timeout + SUBMIT_SECONDS, lambda: submit().result(self.timeout))

    async def call(self, what: str, timeout: float, work: Callable[[], T]) -> T:
        """A blocking call. Raises RunFailedError that says how the trainer is, and what to do now."""
        calling = asyncio.ensure_future(call_in_thread(what, timeout, work))
        looking = asyncio.ensure_future(self._until_dead())
        try:
            await asyncio.wait({calling, looking}, return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise RunFailedError(f"{what}: the trainer died{await self._advice('')}")
            return await calling
        except RunFailedError as error:
            if not calling.done():
                raise
            raise RunFailedError(f"{error}{await self._advice(str(error))}") from error
        finally:
            for task in (calling, looking):
                task.cancel()
            await asyncio.gather(calling, looking, return_exceptions=True)

    async def _until_dead(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(RunFailedError):  # not being able to look says nothing about the trainer
                if await self.state() not in ALIVE:
                    return

    async def state(self) -> str:
        """Such as `RUNNING`. Raises RunFailedError if it cannot be asked."""

        def ask() -> str:
            with contextlib.closing(ControlPlane(self.base_url)) as control:
                return control.trainer_state(self.job) or "gone"

        return await call_in_thread("reading the trainer's state", 30.0, ask)

    async def _advice(self, error: str) -> str:
        try:
            state = f"trainer {self.job} is {await self.state()}"
        except RunFailedError as unknown:
            state = f"trainer {self.job} cannot be asked: {explain(unknown)}"
        poisoned = ", and its session takes no more requests" if POISONED in error else ""
        return f"; {state}{poisoned}; go on from the last checkpoint with --resume, or begin again with --overwrite"
