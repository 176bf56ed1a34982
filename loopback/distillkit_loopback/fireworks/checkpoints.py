"""A trainer's checkpoints: listed, and promoted to models."""

from collections.abc import Iterable
from itertools import count

from pydantic import JsonValue

from distillkit_loopback.fireworks.jobs import ACCOUNT, Jobs
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.training.learner import export_folder
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import not_found

PAGE = 200


class Promotion(Body):
    """A request to make a checkpoint a model."""

    output_model: str
    trainer_job_id: str


class Checkpoints:
    """The checkpoints of all jobs."""

    def __init__(self, store: Store, jobs: Jobs) -> None:
        """`jobs` have the checkpoints, whose files are in `store`."""
        self._store = store
        self._jobs = jobs
        self._operations: dict[str, JsonValue] = {}
        self._numbers = count(1)

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        account = "/v1/accounts/{account}"
        yield Route.to("GET", f"{account}/rlorTrainerJobs/{{job}}/checkpoints", self._list_checkpoints)
        yield Route.to("POST", f"{account}/checkpoints/{{checkpoint}}:promote", self._promote)
        yield Route.to("GET", f"{account}/operations/{{operation}}", self._operation)

    def _list_checkpoints(self, call: Call) -> Response:
        rows = self._jobs.get(call.names["job"]).rows()
        start = int(call.request.query.get("pageToken") or 0)
        end = start + min(int(call.request.query.get("pageSize") or PAGE), PAGE)
        listing: dict[str, JsonValue] = {"checkpoints": rows[start:end]}
        if end < len(rows):
            listing["nextPageToken"] = str(end)
        return Response(listing)

    def _promote(self, call: Call) -> Response:
        promotion = call.body(Promotion)
        job = self._jobs.get(promotion.trainer_job_id.rpartition("/")[2])
        folder = self._store.snapshot(job.job_id, call.names["checkpoint"])
        if not folder.is_dir():
            raise not_found(f"checkpoint {call.names['checkpoint']!r} of {job.name}")
        name = f"accounts/{ACCOUNT}/operations/{next(self._numbers)}"
        operation: dict[str, JsonValue] = {"name": name, "done": not isinstance(call.fault, NeverDone)}
        if isinstance(call.fault, Fails):
            operation["error"] = {"code": 13, "message": call.fault.message}
        elif operation["done"]:
            self._store.add(promotion.output_model, export_folder(folder))
            kind = "HF_PEFT_ADDON" if job.config.lora_rank else "HF_BASE_MODEL"
            operation["response"] = {"@type": "Model", "name": promotion.output_model, "state": "READY", "kind": kind}
        self._operations[name] = operation
        return Response({"operation": operation})

    def _operation(self, call: Call) -> Response:
        name = call.request.path.removeprefix("/v1/")
        if name not in self._operations:
            raise not_found(name)
        return Response(self._operations[name])
