"""New weights for a deployment while it serves."""

from collections.abc import Iterable

from safetensors.torch import load_file

from distillkit_loopback.fireworks.deployments import PREFIX, Deployment, Deployments
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.training.faults import Fails, NeverDone
from distillkit_loopback.training.learner import SAMPLING_WEIGHTS
from distillkit_loopback.transport.messages import Body, Response

PATH = "/hot_load/v1/models/hot_load"


class NewWeights(Body):
    """The snapshot that a deployment shall serve."""

    identity: str


class HotLoads:
    """Snapshots of a deployment's own trainer go into it; requests that run then end on the weights they began with."""

    def __init__(self, store: Store, deployments: Deployments) -> None:
        """Load snapshots of `store` into `deployments`."""
        self._store = store
        self._deployments = deployments

    def routes(self) -> Iterable[Route]:
        """The endpoints of this part."""
        yield Route.to("POST", PATH, self._load)
        yield Route.to("GET", PATH, self._show)

    def _load(self, call: Call) -> Response:
        identity = call.body(NewWeights).identity
        deployment = self._deployment(call)
        stage = "loading" if isinstance(call.fault, NeverDone) else "error"
        if not isinstance(call.fault, NeverDone | Fails) and self._serve(deployment, identity):
            stage = "done"
        deployment.hot_load = {
            "current_snapshot_identity": deployment.snapshot,
            "readiness": stage == "done",
            "loading_state": {"stage": stage, "target_snapshot_identity": identity},
        }
        return Response({})

    def _serve(self, deployment: Deployment, identity: str) -> bool:
        """Whether there is such a snapshot of the deployment's trainer."""
        job = (deployment.settings.trainer_job or "").rpartition("/")[2]
        folder = self._store.snapshot(job, identity)
        if not folder.is_dir():
            return False
        model = self._store.load(deployment.settings.base_model)
        model.model.load_state_dict(load_file(folder / SAMPLING_WEIGHTS))
        deployment.model, deployment.snapshot = model, identity
        return True

    def _show(self, call: Call) -> Response:
        state = dict(self._deployment(call).hot_load)
        return Response({"replicas": [state] if state else []})

    def _deployment(self, call: Call) -> Deployment:
        return self._deployments.get(call.request.headers.get("fireworks-deployment", "").removeprefix(PREFIX))
