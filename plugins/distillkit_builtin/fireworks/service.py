"""The run's one connection to Fireworks: what its plugins request, made in parallel, released by the last user.

Student and scorers declare what they need before anything is checked, so that everything is known before anything is
made, whichever of them is asked first. The first that opens starts all of it at once; each then waits for its own. The
last one that closes cleans up, also when something failed or was interrupted half-way.
"""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit_builtin.fireworks.control_plane import ControlPlane
from distillkit_builtin.fireworks.leftovers import base_urls, reclaim_leftovers
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.provision_teacher import TeacherKey, TeacherRequest, deployment_ids
from distillkit_builtin.fireworks.provisioning import Provisioning
from distillkit_builtin.fireworks.sdk_errors import KEY, explain, status_of
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection
from distillkit_builtin.remote.blocking_calls import call_within

T = TypeVar("T")
log = logging.getLogger("distillkit")
CHECK_SECONDS = 30.0


@dataclass(slots=True)
class FireworksService:
    """One run at one `base_url`."""

    base_url: str
    student: FireworksStudentOptions | None = None
    student_shape: str | None = None
    """Of the student's deployment: what a teacher on the same base model gets too, unless it names one."""
    context_length: int | None = None
    """The student's, in tokens, prompt and completion together; known after its check."""
    teachers: dict[TeacherKey, TeacherRequest] = field(default_factory=dict)
    provisioning: Provisioning | None = None
    """From the first plugin that opens. It stays after the run, for whoever says what there was."""
    _users: set[str] = field(default_factory=set)

    # -- before anything is made

    def declare_teacher(self, request: TeacherRequest) -> None:
        """Register a teacher; the first of several routes to one deployment says what it is like."""
        self.teachers.setdefault(request.key, request)

    def require_fitting(self, request: TeacherRequest) -> None:
        """Raise InputError if another plugin wants the same deployment to be another one."""
        if self.teachers[request.key] != request:
            raise InputError(
                f"two routes to {request.model} share one deployment but ask for it with different options; give them "
                "the same ones, or each its own deployment.deployment_id"
            )
        self.deployment_ids()

    def deployment_ids(self) -> dict[TeacherKey, str]:
        """The deployment of each base model that was declared. Raises InputError if two would share one."""
        student = None if self.student is None else self.student.deployment.deployment_id
        return deployment_ids(self.teachers, student)

    def query_control_plane(self, what: str, query: Callable[[ControlPlane], T]) -> T:
        """Ask the control plane something that costs nothing. Raises InputError if it cannot be asked."""

        def work() -> T:
            with contextlib.closing(ControlPlane(self.base_url)) as control:
                return query(control)

        try:
            return call_within(CHECK_SECONDS, work, "fireworks: check")
        except InputError:
            raise
        except Exception as error:
            refused = status_of(error) in (401, 403)
            hint = f"; is {KEY} a key of this service?" if refused else ""
            raise InputError(f"{what} ({self.base_url}): {explain(error)}{hint}") from error

    # -- while the run lasts

    @property
    def connection(self) -> TrainerConnection | None:
        """The student's trainer, also after the run; None before provisioning has begun."""
        return None if self.provisioning is None else self.provisioning.connection

    async def attach(self, run: RunContext) -> Provisioning:
        """A plugin opens; the first one starts everything that was declared.

        Raises:
            InputError: if an older run left something in this directory that could not be cleaned up.
        """
        first = not self._users
        self._users.add(run.user)
        if first or self.provisioning is None:
            chosen = None if self.student is None else self.student.trainer.job_id
            owned = await reclaim_leftovers(run, self.base_url, chosen)
            self.provisioning = Provisioning(self.base_url, owned)
            self.provisioning.start(run.name, self.student, self.student_shape, self.teachers)
            run.notify(f"Fireworks: waiting for {self._waited_for()} at {self.base_url}, which may take long")
        return self.provisioning

    def concurrency_metrics(self, name: str) -> dict[str, float]:
        """`concurrency/<name>/window` and so on since the last call; nothing for a teacher at another's deployment."""
        return {} if self.provisioning is None else self.provisioning.concurrency_metrics(name)

    async def detach(self, run: RunContext) -> list[str]:
        """A plugin closes; the last one cleans up. Returns what could not be cleaned up, which the user hears too."""
        if run.user not in self._users:
            return []
        self._users.discard(run.user)
        if self._users or self.provisioning is None:
            return []
        problems = await self.provisioning.close()
        for problem in problems:
            log.error("clean-up failed: %s", problem)
            run.notify(f"CLEAN-UP FAILED, this may go on costing money: {problem}", "warning")
        return problems

    def _waited_for(self) -> str:
        student = ["the student's trainer and deployment"] if self.student is not None else []
        return " and ".join([*student, *([f"{len(self.teachers)} teacher(s)"] if self.teachers else [])])


def shared_service(run: RunContext, base_url: str) -> FireworksService:
    """The run's one service at `base_url`."""
    base_urls(run).add(base_url)
    return run.share(("fireworks", base_url), lambda: FireworksService(base_url))
