"""What a run makes at Fireworks: all at once, each in a thread, and released together in the end."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distillkit_builtin.fireworks.blocking_calls import call_in_thread
from distillkit_builtin.fireworks.cleanup import clean_up
from distillkit_builtin.fireworks.completions import Endpoint
from distillkit_builtin.fireworks.control_plane import ControlPlane, api_key
from distillkit_builtin.fireworks.options import Concurrency, FireworksStudentOptions
from distillkit_builtin.fireworks.owned_resources import OwnedResources
from distillkit_builtin.fireworks.provision_teacher import TeacherKey, TeacherRequest, deployment_ids, provision_teacher
from distillkit_builtin.fireworks.provision_trainer import choose_ids, provision_trainer
from distillkit_builtin.fireworks.sdk_errors import explain
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection

log = logging.getLogger("distillkit")
CLOSE_SECONDS = 40.0
CONNECTIONS = 3
"""Tries to provision the student."""


@dataclass(slots=True)
class Provisioning:
    """The run's trainer, deployments and connections at one service, from their request to their release."""

    base_url: str
    owned: OwnedResources
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """Endpoints by the name in their metrics: `student`, or a teacher's slug."""
    connection: TrainerConnection | None = None
    _tasks: dict[Hashable, "asyncio.Task[Any]"] = field(default_factory=dict)
    _stopping: bool = False

    def start(
        self,
        run_name: str,
        student: FireworksStudentOptions | None,
        student_shape: str | None,
        teachers: Mapping[TeacherKey, TeacherRequest],
    ) -> None:
        """Request everything. Teachers on the student's base model get deployments of `student_shape` by default.

        Raises:
            InputError: if two teachers would share a deployment.
        """
        ids = deployment_ids(teachers, None if student is None else student.deployment.deployment_id)
        if student is not None:
            self._tasks["student"] = asyncio.create_task(self._make_student(student, run_name))
        for key, request in teachers.items():
            shape = student_shape if student is not None and student.model == request.model else None
            self._tasks[key] = asyncio.create_task(self._make_teacher(request, ids.get(key), shape))

    async def student(self) -> TrainerConnection:
        """The student's trainer, when everything is there; the first failure of anything ends the waiting."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        connection: TrainerConnection = self._tasks["student"].result()
        return connection

    async def teacher(self, key: TeacherKey) -> Endpoint:
        """A teacher's endpoint, when it is there."""
        endpoint: Endpoint = await asyncio.shield(self._tasks[key])
        return endpoint

    def endpoint(self, name: str, make: Callable[[Any], Any], concurrency: Concurrency) -> Endpoint:
        """An endpoint with a window of its own, closed with the run; `make` gets the window's controller."""
        from fireworks.training.sdk import AdaptiveConcurrencyController

        initial = min(concurrency.initial, concurrency.max)
        controller = AdaptiveConcurrencyController(initial_window=initial, max_window=concurrency.max)
        return self.endpoints.setdefault(name, Endpoint(make(controller), controller))

    def concurrency_metrics(self, name: str) -> dict[str, float]:
        """`concurrency/<name>/window` and so on since the last call; nothing where no endpoint has that name."""
        endpoint = self.endpoints.get(name)
        found = {} if endpoint is None else endpoint.controller.step_completed()
        return {f"concurrency/{name}/{metric}": float(value) for metric, value in found.items()}

    async def close(self) -> list[str]:
        """End everything on this machine, and release what the run owns. Returns what may still be there."""
        unfinished = await self._disconnect()
        return await self._clean_up(unfinished=unfinished)

    async def _make_student(self, options: FireworksStudentOptions, run_name: str) -> TrainerConnection:
        def work() -> TrainerConnection:
            with contextlib.closing(ControlPlane(self.base_url)) as control:
                self.connection = choose_ids(options, run_name, self.owned, control)
                log.info("student: trainer %s, deployment %s", self.connection.trainer_job, self.connection.deployment)
                provision = partial(provision_trainer, options, self.connection, self.base_url, control, self.owned)
                _retry_dropped_connections(partial(provision, lambda: self._stopping))
                return self.connection

        return await call_in_thread("provisioning the student's trainer and deployment", None, work)

    async def _make_teacher(self, request: TeacherRequest, identifier: str | None, shape: str | None) -> Endpoint:
        from fireworks.training.sdk import DeploymentSampler

        model, url = request.model, request.inference_url or self.base_url
        if identifier is not None:
            deployment = identifier

            def work() -> str:
                with contextlib.closing(ControlPlane(self.base_url, request.inference_url)) as control:
                    return provision_teacher(control, deployment, request, self.owned, lambda: self._stopping, shape)

            model = await call_in_thread(
                f"provisioning deployment {identifier!r} for teacher {request.model}", None, work
            )

        def make(controller: object) -> object:
            return DeploymentSampler(
                inference_url=url, model=model, api_key=api_key(), concurrency_controller=controller
            )

        return self.endpoint(request.slug, make, request.concurrency)

    async def _disconnect(self) -> bool:
        """Close connections, end threads. Returns whether provisioning failed, or was not finished."""
        self._stopping = True
        waiting = [task for task in self._tasks.values() if not task.done()]
        failed = any(task.done() and not task.cancelled() and task.exception() for task in self._tasks.values())
        if waiting:  # what is half made is deleted, which also ends the SDK's waiting for it
            await clean_up(self.base_url, self.owned, unfinished=True, in_flight=True)
            if self.connection is not None:
                await _log_failure_of(
                    "cancelling requests", call_in_thread("cancelling", CLOSE_SECONDS, self.connection.loop.cancel)
                )
            await asyncio.wait(waiting, timeout=CLOSE_SECONDS)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for endpoint in self.endpoints.values():
            await _log_failure_of("closing a connection", endpoint.close())
        if self.connection is not None:
            await _log_failure_of(
                "closing the session", call_in_thread("closing the session", CLOSE_SECONDS, self.connection.close)
            )
        return bool(waiting) or failed

    async def _clean_up(self, *, unfinished: bool) -> list[str]:
        problems = await clean_up(self.base_url, self.owned, unfinished=unfinished)
        if not problems:
            self.owned.leave_to_user()
        return problems


def _retry_dropped_connections(provision: Callable[[], None]) -> None:
    """The SDK gives up at one dropped connection; with ids of our own, another try finds what the first one made."""
    import httpx

    for attempt in reversed(range(CONNECTIONS)):
        try:
            return provision()
        except httpx.TransportError:
            if not attempt:
                raise
    return None


async def _log_failure_of(doing: str, work: Awaitable[object]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - what follows must happen all the same
        log.warning("%s: %s", doing, explain(error))
