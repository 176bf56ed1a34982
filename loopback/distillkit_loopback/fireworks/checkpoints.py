"""What becomes of a trainer's checkpoints: they are listed, and made models."""

from collections.abc import Iterable
from itertools import count

from pydantic import JsonValue

from distillkit_loopback.fireworks.faults import Fails, NeverDone
from distillkit_loopback.fireworks.jobs import ACCOUNT, Jobs
from distillkit_loopback.fireworks.learner import exported
from distillkit_loopback.fireworks.messages import Call, Route, not_found
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.transport.messages import Answer, Body

PAGE = 200


class Promotion(Body):
    """A request to make a checkpoint a model."""

    output_model: str
    trainer_job_id: str


class Checkpoints:
    """The checkpoints of all jobs."""

    def __init__(self, store: Store, jobs: Jobs) -> None:
        """Nothing promoted yet."""
        self._store = store
        self._jobs = jobs
        self._operations: dict[str, JsonValue] = {}
        self._numbers = count(1)

    def routes(self) -> Iterable[Route]:
        """What this part answers."""
        account = "/v1/accounts/{account}"
        yield Route.to("GET", f"{account}/rlorTrainerJobs/{{job}}/checkpoints", self._list_checkpoints)
        yield Route.to("POST", f"{account}/checkpoints/{{checkpoint}}:promote", self._promote)
        yield Route.to("GET", f"{account}/operations/{{operation}}", self._operation)

    def _list_checkpoints(self, call: Call) -> Answer:
        rows = self._jobs.get(call.names["job"]).rows()
        start = int(call.request.query.get("pageToken") or 0)
        end = start + min(int(call.request.query.get("pageSize") or PAGE), PAGE)
        answer: dict[str, JsonValue] = {"checkpoints": rows[start:end]}
        if end < len(rows):
            answer["nextPageToken"] = str(end)
        return Answer(answer)

    def _promote(self, call: Call) -> Answer:
        wanted = call.body(Promotion)
        job = self._jobs.get(wanted.trainer_job_id.rpartition("/")[2])
        folder = self._store.snapshot(job.job_id, call.names["checkpoint"])
        if not folder.is_dir():
            raise not_found(f"checkpoint {call.names['checkpoint']!r} of {job.name}")
        name = f"accounts/{ACCOUNT}/operations/{next(self._numbers)}"
        operation: dict[str, JsonValue] = {"name": name, "done": not isinstance(call.effect, NeverDone)}
        if isinstance(call.effect, Fails):
            operation["error"] = {"code": 13, "message": call.effect.message}
        elif operation["done"]:
            self._store.add(wanted.output_model, exported(folder))
            kind = "HF_PEFT_ADDON" if job.config.lora_rank else "HF_BASE_MODEL"
            operation["response"] = {"@type": "Model", "name": wanted.output_model, "state": "READY", "kind": kind}
        self._operations[name] = operation
        return Answer({"operation": operation})

    def _operation(self, call: Call) -> Answer:
        name = call.request.path.removeprefix("/v1/")
        if name not in self._operations:
            raise not_found(name)
        return Answer(self._operations[name])
