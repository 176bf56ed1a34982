"""Trainer jobs: made, shown, resumed and deleted."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from pydantic import Field, JsonValue

from distillkit_loopback.fireworks.faults import Fault
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused, not_found

ACCOUNT = "loopback"
COST = ("JOB_STATE_PENDING", "JOB_STATE_CREATING", "JOB_STATE_RUNNING")
"""The states in which a job has machines, or waits for them."""
DATE = "2026-01-01T00:00:00Z"


class TrainingConfig(Body):
    """The part of a job that says what it trains."""

    base_model: str = Field(alias="baseModel")
    lora_rank: int = Field(0, alias="loraRank")


class NewJob(Body):
    """The body of a request to create a trainer job."""

    training_config: TrainingConfig = Field(alias="trainingConfig")


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A trainer that costs money now."""

    job_id: str
    state: str
    base_model: str
    lora_rank: int


@dataclass(slots=True)
class Job:
    """A trainer job: its config, state, and checkpoints."""

    job_id: str
    config: TrainingConfig
    state: str = "JOB_STATE_CREATING"
    message: str = ""
    fault: Fault | None = None
    """How it fails whenever it starts; one that cannot start cannot be resumed either."""
    checkpoints: list[tuple[str, str]] = field(default_factory=list)
    """Name and type, oldest first."""

    @property
    def name(self) -> str:
        """The full resource name, `accounts/.../rlorTrainerJobs/...`."""
        return f"accounts/{ACCOUNT}/rlorTrainerJobs/{self.job_id}"

    def start(self) -> None:
        """Get the machines, if it waits for them and they come."""
        if self.state != "JOB_STATE_CREATING" or isinstance(self.fault, NeverDone):
            return
        if isinstance(self.fault, Fails):
            self.state, self.message = "JOB_STATE_FAILED", self.fault.message
        else:
            self.state = "JOB_STATE_RUNNING"

    def public(self) -> JsonValue:
        """The trainer job as JSON, as the control plane shows it."""
        config: JsonValue = {"baseModel": self.config.base_model, "loraRank": self.config.lora_rank}
        status: JsonValue = {"code": "INTERNAL" if self.message else "OK", "message": self.message}
        return {"name": self.name, "state": self.state, "status": status, "trainingConfig": config}

    def rows(self) -> list[JsonValue]:
        """The job's checkpoints as JSON, as the control plane lists them."""
        dates = {"createTime": DATE, "updateTime": DATE}
        return [
            {
                "name": f"{self.name}/checkpoints/{name}",
                "checkpointType": kind,
                "promotable": "INFERENCE" in kind,
                **dates,
            }
            for name, kind in self.checkpoints
        ]


class Jobs:
    """All trainer jobs of the account."""

    def __init__(self, store: Store, ended: Callable[[str], None]) -> None:
        """`ended(job_id)` is called when a job loses its machines, and with them its models."""
        self._store = store
        self._ended = ended
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._numbers = count(1)

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        jobs = "/v1/accounts/{account}/rlorTrainerJobs"
        yield Route.to("POST", jobs, self._create)
        yield Route.to("GET", f"{jobs}/{{job}}", self._show)
        yield Route.to("DELETE", f"{jobs}/{{job}}", self._delete)
        yield Route.to("POST", f"{jobs}/{{job}}:resume", self._resume)

    def running(self) -> dict[str, RunningJob]:
        """The trainer jobs that cost money now, by id."""
        with self._lock:
            return {
                job.job_id: RunningJob(job.job_id, job.state, job.config.base_model, job.config.lora_rank)
                for job in self._jobs.values()
                if job.state in COST
            }

    def get(self, job_id: str) -> Job:
        """A job. Raises Refused for an unknown id."""
        with self._lock:
            if job_id not in self._jobs:
                raise not_found(f"trainer job {job_id!r}")
            return self._jobs[job_id]

    def end(self, job_id: str, state: str, message: str = "") -> None:
        """The job gives its machines back."""
        with self._lock:
            job = self.get(job_id)
            job.state, job.message = state, message
        self._ended(job_id)

    def _create(self, call: Call) -> Response:
        job_id = call.request.query.get("rlorTrainerJobId") or f"job-{next(self._numbers)}"
        job = Job(job_id, call.body(NewJob).training_config, fault=call.fault)
        self._store.path(job.config.base_model)
        with self._lock:
            if job_id in self._jobs:
                raise Refused(409, f"trainer job {job_id!r} exists", "ALREADY_EXISTS")
            self._jobs[job_id] = job
        return Response(job.public())

    def _show(self, call: Call) -> Response:
        """Ready at the first request, so that no client waits for a poll."""
        with self._lock:
            job = self.get(call.names["job"])
            job.start()
            return Response(job.public())

    def _delete(self, call: Call) -> Response:
        self.end(call.names["job"], "JOB_STATE_DELETED")
        return Response({})

    def _resume(self, call: Call) -> Response:
        with self._lock:
            job = self.get(call.names["job"])
            if job.state == "JOB_STATE_DELETED":
                raise Refused(400, f"trainer job {job.job_id!r} is deleted", "FAILED_PRECONDITION")
            if job.state not in COST:
                job.state, job.message, job.fault = "JOB_STATE_CREATING", "", call.fault or job.fault
        return Response({})
