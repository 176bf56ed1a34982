"""New weights for a deployment while it serves."""

from collections.abc import Iterable

from safetensors.torch import load_file

from distillkit_loopback.fireworks.deployments import PREFIX, Deployment, Deployments
from distillkit_loopback.fireworks.faults import Fails, NeverDone
from distillkit_loopback.fireworks.learner import SAMPLING_WEIGHTS
from distillkit_loopback.fireworks.messages import Call, Route
from distillkit_loopback.fireworks.store import Store
from distillkit_loopback.transport.messages import Answer, Body

PATH = "/hot_load/v1/models/hot_load"


class NewWeights(Body):
    """The snapshot that a deployment shall serve."""

    identity: str


class HotLoads:
    """Snapshots of a deployment's own trainer go into it; requests that run then end on the weights they began with."""

    def __init__(self, store: Store, deployments: Deployments) -> None:
        """Nothing loaded yet."""
        self._store = store
        self._deployments = deployments

    def routes(self) -> Iterable[Route]:
        """What this part answers."""
        yield Route.to("POST", PATH, self._load)
        yield Route.to("GET", PATH, self._show)

    def _load(self, call: Call) -> Answer:
        identity = call.body(NewWeights).identity
        deployment = self._deployment(call)
        stage = "loading" if isinstance(call.effect, NeverDone) else "error"
        if not isinstance(call.effect, NeverDone | Fails) and self._serve(deployment, identity):
            stage = "done"
        deployment.hot_load = {
            "current_snapshot_identity": deployment.snapshot,
            "readiness": stage == "done",
            "loading_state": {"stage": stage, "target_snapshot_identity": identity},
        }
        return Answer({})

    def _serve(self, deployment: Deployment, identity: str) -> bool:
        """Whether there is such a snapshot of the deployment's trainer."""
        job = (deployment.settings.trainer_job or "").rpartition("/")[2]
        folder = self._store.snapshot(job, identity)
        if not folder.is_dir():
            return False
        network = self._store.load(deployment.settings.base_model)
        network.model.load_state_dict(load_file(folder / SAMPLING_WEIGHTS))
        deployment.network, deployment.snapshot = network, identity
        return True

    def _show(self, call: Call) -> Answer:
        state = dict(self._deployment(call).hot_load)
        return Answer({"replicas": [state] if state else []})

    def _deployment(self, call: Call) -> Deployment:
        return self._deployments.get(call.request.headers.get("fireworks-deployment", "").removeprefix(PREFIX))
