"""The control plane: what exists, what is made and released. Blocking; the one place that reaches into the SDK."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillkit_builtin.fireworks.sdk_errors import KEY
from distillkit_builtin.remote.connection import quieten

if TYPE_CHECKING:
    from fireworks.training.sdk.fireworks_client import TrainingShapeProfile

POLL_SECONDS = 10.0
GONE = ("DELETED", "DELETING", "ARCHIVED")


def api_key() -> str:
    """The user's key; it comes from the environment and goes nowhere but into requests."""
    return os.environ.get(KEY, "").strip()


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment as the service sees it."""

    state: str
    base_model: str | None
    max_replicas: int

    @property
    def is_gone(self) -> bool:
        """Whether the deployment is deleted, or about to be."""
        return self.state in GONE

    @property
    def costs_nothing(self) -> bool:
        """Whether the deployment is gone or has no replicas."""
        return self.is_gone or self.max_replicas == 0


class ControlPlane:
    """One thread's connection to the control plane at `base_url`."""

    def __init__(self, base_url: str, inference_url: str | None = None) -> None:
        """Make the SDK's managers; the first request is sent by a method."""
        from fireworks.training.sdk import DeploymentManager, TrainerJobManager

        quieten()
        self._jobs: Any = TrainerJobManager(api_key=api_key(), base_url=base_url)
        self._deployments: Any = DeploymentManager(api_key=api_key(), base_url=base_url, inference_url=inference_url)

    def training_shape(self, shape: str) -> "TrainingShapeProfile":
        """The profile of a training shape. Raises RuntimeError for an unknown name."""
        profile: TrainingShapeProfile = self._jobs.resolve_training_profile(shape)
        return profile

    def trainer_state(self, job: str) -> str | None:
        """Such as `RUNNING`; None where there is no such job."""
        found = self._jobs.try_get(job)
        return None if found is None else str(found.get("state", "")).removeprefix("JOB_STATE_")

    def delete_trainer(self, job: str) -> None:
        """Request the deletion, without waiting until it is done."""
        self._jobs.delete(job)

    def deployment(self, identifier: str) -> Deployment | None:
        """The deployment of that id; None if no deployment has it."""
        found: Mapping[str, Any] | None = self._deployments._get_deployment(identifier)
        if found is None:
            return None
        replicas = int(found.get("maxReplicaCount") or 0)  # the service leaves a 0 out
        return Deployment(str(found.get("state", "")), found.get("baseModel"), replicas)

    def create_deployment(self, identifier: str, model: str, shape: str | None, replicas: int) -> None:
        """Ask for a frozen deployment of `model`; one that failed under that id is made anew."""
        from fireworks.training.sdk import DeploymentConfig

        config = DeploymentConfig(
            deployment_id=identifier,
            base_model=model,
            deployment_shape=shape,
            min_replica_count=replicas,
            max_replica_count=replicas,
            hot_load_bucket_type=None,
            enable_hot_load=False,
            for_training=True,
        )
        self._deployments.create_or_get(config)

    def scale(self, identifier: str, replicas: int) -> None:
        """Give a deployment this many replicas. Raises httpx.HTTPStatusError."""
        body = {"minReplicaCount": replicas, "maxReplicaCount": replicas}
        self._deployments.update(identifier, body, ["min_replica_count", "max_replica_count"])

    def delete_deployment(self, identifier: str) -> None:
        """Request the deletion, without waiting until it is done."""
        self._deployments.delete(identifier)

    def wait_ready(self, identifier: str, timeout: float, *, probe: bool, stop: Callable[[], bool]) -> str:
        """Wait until a deployment serves; returns the name to ask it by.

        Args:
            identifier: its id.
            timeout: seconds.
            probe: also wait for an answer to a request: one that is woken from zero replicas reads READY before.
            stop: asked at each poll; True ends the waiting.
        """
        import httpx

        until = time.monotonic() + timeout
        while True:
            # A dropped connection, which the SDK does not retry, says nothing about the deployment.
            with contextlib.suppress(TimeoutError, httpx.TransportError):
                info = self._deployments.wait_for_ready(identifier, timeout_s=0.001, poll_interval_s=0.0)
                if not probe or self._deployments._probe_inference(info.inference_model):
                    return str(info.inference_model)
            if stop():
                raise RuntimeError(f"deployment {identifier!r}: the run ended while it was waited for")
            if time.monotonic() > until:
                raise TimeoutError(f"deployment {identifier!r} not ready within {timeout:g} s")
            time.sleep(POLL_SECONDS)

    def checkpoints(self, job: str) -> list[Mapping[str, Any]]:
        """A trainer's checkpoints, the oldest first; also of one that is deleted."""
        rows: list[Mapping[str, Any]] = self._jobs.list_checkpoints(job)
        return rows

    def promote(self, checkpoint: str, model_id: str, base_model: str) -> Mapping[str, Any]:
        """Make a model of a checkpoint; takes up to two hours."""
        model: Mapping[str, Any] = self._jobs.promote_checkpoint(
            name=checkpoint, output_model_id=model_id, base_model=base_model
        )
        return model

    def close(self) -> None:
        """Close the connections."""
        self._jobs.close()
        self._deployments.close()
