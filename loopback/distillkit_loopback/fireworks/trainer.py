"""The trainer gateway: whether a trainer is alive, its sessions and models, and the futures that carry results."""

import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import count

from pydantic import JsonValue

from distillkit_loopback.fireworks.faults import Dies
from distillkit_loopback.fireworks.jobs import Job, Jobs
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.operations import LoraSettings, Models
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.training.futures import Futures, Operation, Worker
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused

LONG_POLL_S = 10.0
"""The SDK asks again at once after `try_again`."""
DEAD_PAUSE_S = 0.2
"""It also asks a dead trainer for a result again at once, for ever."""
PATH = "/training/v1/rlorTrainerJobs/{account}/{job}/api/v1/"


class NewModel(Body):
    """The body of a request to create a model."""

    session_id: str
    model_seq_id: int
    base_model: str
    lora_config: LoraSettings = LoraSettings()


class Unload(Body):
    """The body of a request to unload a model."""

    model_id: str


class Retrieve(Body):
    """The body of a request for the result of an operation."""

    request_id: str


class Trainers:
    """The training endpoints of all trainer jobs."""

    def __init__(self, store: Store, closing: threading.Event) -> None:
        """`closing` is set when the service ends."""
        self._closing = closing
        self._futures = Futures()
        self._worker = Worker(self._futures)
        self._lock = threading.Lock()
        self._created: dict[str, str] = {}
        """Model id to the request id of its creation."""
        self._numbers = count(1)
        self.models = Models(store, self._futures, self._worker)
        self.jobs = Jobs(store, self.models.forget_job)

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part; all of a job that does not run respond with 503."""
        gets: Mapping[str, Callable[[Call], Response]] = {
            "healthz": lambda call: Response({"status": "ok"}),
            "list_checkpoints": self._list_checkpoints,
        }
        posts: Mapping[str, Callable[[Call], Response]] = {
            "create_session": self._create_session,
            "session_heartbeat": lambda call: Response({"type": "session_heartbeat"}),
            "telemetry": lambda call: Response({"status": "accepted"}),
            "create_model": self._create_model,
            "unload_model": self._unload_model,
            "retrieve_future": self._retrieve,
            **self.models.functions(),
        }
        for method, functions in (("GET", gets), ("POST", posts)):
            for name, function in functions.items():
                yield Route.to(method, PATH + name, self._alive(function))

    def close(self) -> None:
        """Wake requests that wait for results, and end the worker thread."""
        self._futures.close()
        self._worker.close()

    def _alive(self, function: Callable[[Call], Response]) -> Callable[[Call], Response]:
        def respond(call: Call) -> Response:
            job = self._job(call)
            if isinstance(call.fault, Dies):
                self.jobs.end(job.job_id, "JOB_STATE_FAILED", call.fault.message)
            if job.state != "JOB_STATE_RUNNING":
                if call.request.path.endswith("retrieve_future"):
                    self._closing.wait(DEAD_PAUSE_S)
                raise Refused(503, f"trainer {job.job_id!r} is not running", "UNAVAILABLE")
            return function(call)

        return respond

    def _job(self, call: Call) -> Job:
        return self.jobs.get(call.names["job"])

    def _create_session(self, call: Call) -> Response:
        return Response({"type": "create_session", "session_id": f"session-{next(self._numbers)}"})

    def _list_checkpoints(self, call: Call) -> Response:
        return Response({"checkpoints": [name for name, kind in self._job(call).checkpoints if "TRAINING" in kind]})

    def _create_model(self, call: Call) -> Response:
        new, job = call.body(NewModel), self._job(call)
        if new.base_model != job.config.base_model or new.lora_config.rank > job.config.lora_rank:
            raise Refused(400, f"trainer {job.job_id!r} has {job.config.base_model!r}, rank {job.config.lora_rank}")
        model_id = f"{job.job_id}:{new.session_id}:{new.model_seq_id}"

        def create() -> JsonValue:
            self.models.make(job, model_id, new.base_model, new.lora_config)
            return {"type": "create_model", "model_id": model_id}

        with self._lock:
            if model_id not in self._created:
                self._created[model_id] = request_id = self._futures.make(job.job_id)
                self._worker.submit(Operation(request_id, create, call.fault))
            return Response({"request_id": self._created[model_id]})

    def _unload_model(self, call: Call) -> Response:
        model_id = call.body(Unload).model_id
        self.models.forget(model_id)
        request_id = self._futures.make(self._job(call).job_id)
        self._futures.finish(request_id, {"type": "unload_model", "model_id": model_id})
        return Response({"request_id": request_id})

    def _retrieve(self, call: Call) -> Response:
        request_id = call.body(Retrieve).request_id
        result = self._futures.wait(request_id, LONG_POLL_S)
        if result is None:
            return Response({"type": "try_again", "request_id": request_id, "queue_state": "active"})
        return Response(result)
