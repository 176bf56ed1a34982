"""The run's one connection to Fireworks: what its plugins wish for, made in parallel, and let go of by the last user.

Student and scorers say in `check` what they need, so that everything is known before anything is made. The first that
opens starts all of it at once; each then waits for its own. The last one that closes cleans up, also when something
failed or was interrupted half-way, and looks whether what it let go of went.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from distillkit.context import RunContext
from distillkit.errors import DistillkitError, InputError
from distillkit_builtin.fireworks.blocking_calls import call, within
from distillkit_builtin.fireworks.cleanup import clean_up
from distillkit_builtin.fireworks.control_plane import Control, api_key
from distillkit_builtin.fireworks.endpoint import Endpoint
from distillkit_builtin.fireworks.leftovers import base_urls, inherit
from distillkit_builtin.fireworks.owned_resources import Belongings
from distillkit_builtin.fireworks.provision_teacher import TeacherKey, TeacherWish, deployment_ids, provision_teacher
from distillkit_builtin.fireworks.provision_trainer import TrainerParts, choose_ids, provision_trainer
from distillkit_builtin.fireworks.sdk_errors import KEY, explain, status_of

if TYPE_CHECKING:
    from distillkit_builtin.fireworks.student import FireworksStudent

T = TypeVar("T")
log = logging.getLogger("distillkit")
CHECK_SECONDS = 30.0
CLEANUP_SECONDS = 180.0
CLOSE_SECONDS = 40.0
CONNECTIONS = 3
"""Tries to provision the student."""


@dataclass(slots=True)
class Service:
    """One run at one `base_url`."""

    base_url: str
    student: "FireworksStudent | None" = None
    student_shape: str | None = None
    """Of the student's deployment: what a teacher on the same base model gets too, unless it names one."""
    wishes: dict[TeacherKey, TeacherWish] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By the name in their metrics: `student`, or a teacher's slug."""
    parts: TrainerParts | None = None
    looked_at: dict[TeacherKey, str] = field(default_factory=dict)
    """The deployments whose use `check` has told; their names change when a second base model joins."""
    _belongings: Belongings | None = None
    _users: set[str] = field(default_factory=set)
    _tasks: dict[Hashable, "asyncio.Task[Any]"] = field(default_factory=dict)
    _stopping: bool = False

    # -- before anything is made

    def wish(self, wish: TeacherWish) -> None:
        """Register a teacher. Raises InputError if another route to the same deployment asks for it differently."""
        known = self.wishes.setdefault(wish.key, wish)
        if known != wish:
            raise InputError(
                f"two routes to {wish.model} share one deployment but ask for it with different options; give them "
                "the same ones, or each its own deployment_id"
            )
        self.deployment_ids()  # raises if two models want one

    def deployment_ids(self) -> dict[TeacherKey, str]:
        """The deployment of each base model that was wished for so far. Raises InputError if two would share one."""
        return deployment_ids(self.wishes, self.student.deployment_id if self.student is not None else None)

    def inquire(self, what: str, ask: Callable[[Control], T]) -> T:
        """Ask the control plane something that costs nothing. Raises InputError if it cannot be asked."""

        def work() -> T:
            with contextlib.closing(Control(self.base_url)) as control:
                return ask(control)

        try:
            return within(CHECK_SECONDS, work)
        except InputError:
            raise
        except Exception as error:
            refused = status_of(error) in (401, 403)
            hint = f"; is {KEY} a key of this service?" if refused else ""
            raise InputError(f"{what} ({self.base_url}): {explain(error)}{hint}") from error

    # -- while the run lasts

    async def enter(self, run: RunContext) -> None:
        """A plugin opens; the first one starts everything that was wished for.

        Raises:
            InputError: if an older run left something in this directory that could not be cleaned up.
        """
        first = not self._users
        self._users.add(run.user)
        if first:
            chosen = None if self.student is None else self.student.trainer_job_id
            self._belongings = await inherit(run, self.base_url, chosen, self._clean)
            self._start(run.name, self._belongings)
            run.notify(f"Fireworks: waiting for {self._waited_for()} at {self.base_url}, which may take long")

    async def student_parts(self) -> TrainerParts:
        """The student's trainer, when everything is there; the first failure of anything ends the waiting."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        parts: TrainerParts = self._tasks["student"].result()
        return parts

    async def teacher(self, key: TeacherKey) -> Endpoint:
        """A teacher's endpoint, when it is there."""
        endpoint: Endpoint = await asyncio.shield(self._tasks[key])
        return endpoint

    def concurrency_metrics(self, name: str) -> dict[str, float]:
        """`concurrency/<name>/window` and so on since the last call; nothing for a teacher at another's deployment."""
        endpoint = self.endpoints.get(name)
        found = {} if endpoint is None else endpoint.controller.step_completed()
        return {f"concurrency/{name}/{metric}": float(value) for metric, value in found.items()}

    def endpoint(self, name: str, make: Callable[[Any], Any], initial: int, most: int) -> Endpoint:
        """An endpoint with a window of its own, closed with the service; `make` gets the window's controller."""
        from fireworks.training.sdk import AdaptiveConcurrencyController

        controller = AdaptiveConcurrencyController(initial_window=min(initial, most), max_window=most)
        return self.endpoints.setdefault(name, Endpoint(make(controller), controller))

    async def leave(self, run: RunContext) -> list[str]:
        """A plugin closes; the last one cleans up. Returns what could not be cleaned up, which is also told."""
        if run.user not in self._users:
            return []
        self._users.discard(run.user)
        if self._users or self._belongings is None:
            return []
        problems = await self._close(self._belongings)
        for problem in problems:
            log.error("clean-up failed: %s", problem)
            run.notify(f"CLEAN-UP FAILED, this may go on costing money: {problem}")
        return problems

    def _waited_for(self) -> str:
        wanted = ["the student's trainer and deployment"] if self.student is not None else []
        return " and ".join([*wanted, *([f"{len(self.wishes)} teacher(s)"] if self.wishes else [])])

    def _start(self, run_name: str, belongings: Belongings) -> None:
        ids = self.deployment_ids()
        if self.student is not None:
            self._tasks["student"] = asyncio.create_task(self._make_student(self.student, run_name, belongings))
        for key, wish in self.wishes.items():
            self._tasks[key] = asyncio.create_task(self._make_teacher(wish, ids.get(key), belongings))

    async def _make_student(self, options: "FireworksStudent", run_name: str, belongings: Belongings) -> TrainerParts:
        def work() -> TrainerParts:
            with contextlib.closing(Control(self.base_url)) as control:
                self.parts = choose_ids(options, run_name, belongings, control)
                log.info("student: trainer %s, deployment %s", self.parts.trainer_job, self.parts.deployment)
                provision = partial(provision_trainer, options, self.parts, self.base_url, control, belongings)
                _retried(partial(provision, lambda: self._stopping))
                return self.parts

        return await call("provisioning the student's trainer and deployment", None, work)

    async def _make_teacher(self, wish: TeacherWish, identifier: str | None, belongings: Belongings) -> Endpoint:
        from fireworks.training.sdk import DeploymentSampler

        model, url = wish.model, wish.inference_url or self.base_url
        if identifier is not None:
            made = identifier
            on_students_base = self.student is not None and self.student.model == wish.model
            shape = self.student_shape if on_students_base else None

            def work() -> str:
                with contextlib.closing(Control(self.base_url, wish.inference_url)) as control:
                    return provision_teacher(control, made, wish, belongings, lambda: self._stopping, shape)

            model = await call(f"provisioning deployment {identifier!r} for teacher {wish.model}", None, work)

        def make(controller: object) -> object:
            return DeploymentSampler(
                inference_url=url, model=model, api_key=api_key(), concurrency_controller=controller
            )

        return self.endpoint(wish.slug, make, wish.initial_concurrency, wish.max_concurrency)

    async def _close(self, belongings: Belongings) -> list[str]:
        self._stopping = True
        waiting = [task for task in self._tasks.values() if not task.done()]
        failed = any(task.done() and not task.cancelled() and task.exception() for task in self._tasks.values())
        if waiting:  # what is half made is deleted, which also ends the SDK's waiting for it
            await self._clean(belongings, unfinished=True, in_flight=True)
            await asyncio.wait(waiting, timeout=CLOSE_SECONDS)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for endpoint in self.endpoints.values():
            await _quietly("closing a connection", endpoint.close())
        if self.parts is not None and self.parts.service is not None:
            await _quietly("closing the session", call("closing the session", CLOSE_SECONDS, self.parts.service.close))
        problems = await self._clean(belongings, unfinished=bool(waiting) or failed)
        if not problems:
            belongings.hand_over()
        return problems

    async def _clean(self, belongings: Belongings, *, unfinished: bool = False, in_flight: bool = False) -> list[str]:
        def work() -> list[str]:
            with contextlib.closing(Control(self.base_url)) as control:
                return clean_up(control, belongings, unfinished=unfinished, in_flight=in_flight)

        try:
            return await call("cleaning up", CLEANUP_SECONDS, work)
        except DistillkitError as error:
            return [f"{error}; still there may be: {belongings.named}"] if belongings.named else []


def _retried(provision: Callable[[], None]) -> None:
    """The SDK gives up at one dropped connection; with ids of our own, another try finds what the first one made."""
    import httpx

    for attempt in reversed(range(CONNECTIONS)):
        try:
            return provision()
        except httpx.TransportError:
            if not attempt:
                raise
    return None


async def _quietly(doing: str, work: Awaitable[object]) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - what follows must happen all the same
        log.warning("%s: %s", doing, explain(error))


def shared_service(run: RunContext, base_url: str) -> Service:
    """The run's one service at `base_url`."""
    base_urls(run).add(base_url)
    return run.share(("fireworks", base_url), lambda: Service(base_url))
