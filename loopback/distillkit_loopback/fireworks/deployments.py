"""Deployments: made, scaled and deleted."""

import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ConfigDict, Field, JsonValue

from distillkit_loopback.fireworks.faults import Fault
from distillkit_loopback.fireworks.jobs import ACCOUNT
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.transport.messages import Body, Response
from distillkit_loopback.transport.routes import Refused, not_found

ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
PREFIX = f"accounts/{ACCOUNT}/deployments/"


class Settings(Body):
    """The settings of a deployment; unknown ones are kept and shown."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    base_model: str = Field(alias="baseModel")
    max_replicas: int = Field(1, alias="maxReplicaCount")
    trainer_job: str | None = Field(None, alias="hotLoadTrainerJob")


class Changes(Body):
    """The settings that a PATCH names."""

    model_config = ConfigDict(frozen=True, extra="allow")


@dataclass(frozen=True, slots=True)
class RunningDeployment:
    """A deployment that has, or waits for, at least one replica."""

    deployment_id: str
    state: str
    base_model: str
    max_replicas: int
    snapshot: str | None
    """The weights that were loaded into it last."""


@dataclass(slots=True)
class Deployment:
    """One deployment."""

    deployment_id: str
    settings: Settings
    state: str = "CREATING"
    message: str = ""
    fault: Fault | None = None
    """How it fails when it starts."""
    snapshot: str | None = None
    model: CausalLM | None = None
    """The model of the last hot load; None: the base model."""
    hot_load: Mapping[str, JsonValue] = field(default_factory=dict)
    """The state of the last hot load, as its replica reports it."""

    @property
    def costs(self) -> bool:
        """Whether the deployment costs money: it has replicas or waits for some."""
        return self.state in ("CREATING", "READY") and self.settings.max_replicas > 0

    def start(self) -> None:
        """Get a replica, if it waits for one and one comes."""
        if self.state != "CREATING" or isinstance(self.fault, NeverDone):
            return
        if isinstance(self.fault, Fails):
            self.state, self.message = "FAILED", self.fault.message
        else:
            self.state = "READY"

    def public(self) -> JsonValue:
        """The deployment as JSON, as the control plane shows it."""
        settings: dict[str, JsonValue] = self.settings.model_dump(by_alias=True, exclude_none=True)
        status: JsonValue = {"code": "INTERNAL" if self.message else "OK", "message": self.message}
        return {**settings, "name": PREFIX + self.deployment_id, "state": self.state, "status": status}


class Deployments:
    """All deployments of the account."""

    def __init__(self, store: Store) -> None:
        """An account without deployments."""
        self._store = store
        self._lock = threading.RLock()
        self._deployments: dict[str, Deployment] = {}

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        single = "/v1/accounts/{account}/deployments/{deployment}"
        yield Route.to("POST", "/v1/accounts/{account}/deployments", self._create)
        yield Route.to("GET", single, self._show)
        yield Route.to("PATCH", single, self._update)
        yield Route.to("DELETE", single, self._delete)

    def running(self) -> dict[str, RunningDeployment]:
        """The deployments that cost money now, by id."""
        with self._lock:
            return {
                each.deployment_id: RunningDeployment(
                    each.deployment_id,
                    each.state,
                    each.settings.base_model,
                    each.settings.max_replicas,
                    each.snapshot,
                )
                for each in self._deployments.values()
                if each.costs
            }

    def serving(self, model: str) -> CausalLM | None:
        """The model behind a deployment's name; None if it is not the name of a deployment.

        Raises Refused, as the gateway does, for one that has no replica ready.
        """
        if not model.startswith(PREFIX):
            return None
        with self._lock:
            found = self._deployments.get(model.removeprefix(PREFIX))
            if found is None or found.state != "READY" or not found.settings.max_replicas:
                raise not_found(f"model {model!r}")
            return found.model or self._store.frozen(found.settings.base_model)

    def get(self, deployment_id: str) -> Deployment:
        """A deployment. Raises Refused for an unknown id."""
        if deployment_id not in self._deployments:
            raise not_found(f"deployment {deployment_id!r}")
        return self._deployments[deployment_id]

    def _create(self, call: Call) -> Response:
        deployment_id = call.request.query.get("deploymentId", "")
        if not ID.fullmatch(deployment_id):
            raise Refused(400, f"{deployment_id!r} is no deployment id: at most 63 of a-z, 0-9 and -, a letter first")
        deployment = Deployment(deployment_id, call.body(Settings), fault=call.fault)
        self._store.path(deployment.settings.base_model)
        with self._lock:
            if deployment_id in self._deployments:
                raise Refused(409, f"deployment {deployment_id!r} exists", "ALREADY_EXISTS")
            self._deployments[deployment_id] = deployment
        return Response(deployment.public())

    def _show(self, call: Call) -> Response:
        """Ready at the first request, so that no client waits for a poll."""
        with self._lock:
            deployment = self.get(call.names["deployment"])
            deployment.start()
            return Response(deployment.public())

    def _update(self, call: Call) -> Response:
        with self._lock:
            deployment = self.get(call.names["deployment"])
            changed = {**deployment.settings.model_dump(by_alias=True), **call.body(Changes).model_dump()}
            deployment.settings = Settings.model_validate(changed)
            return Response(deployment.public())

    def _delete(self, call: Call) -> Response:
        with self._lock:
            self.get(call.names["deployment"])
            del self._deployments[call.names["deployment"]]
        return Response({})
