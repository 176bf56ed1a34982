"""The student's trainer job and its hot-loaded deployment: made, reused after a kill, or the user's own."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from distillkit.errors import RunFailedError
from distillkit_builtin.fireworks.control_plane import ControlPlane, api_key
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.owned_resources import OwnedResources
from distillkit_builtin.fireworks.resource_names import new_run_id
from distillkit_builtin.fireworks.trainer_connection import TrainerConnection

REUSABLE = ("RUNNING", "CREATING", "PENDING", "FAILED", "CANCELLED", "PAUSED", "COMPLETED")
"""The states of a trainer job that the SDK waits for or wakes; of any other it says that it is over."""


def choose_ids(
    options: FireworksStudentOptions, run_name: str, owned: OwnedResources, control: ControlPlane
) -> TrainerConnection:
    """The ids of trainer and deployment, and, before they are requested, the record of what the run will own.

    The user's own are used. Those of a run that is resumed are taken up where they still exist; a trainer that was
    cleaned up cannot come back, so there is a new one then.
    """
    job, deployment = options.trainer.job_id, options.deployment.deployment_id
    last = owned.student
    if job is None and "trainer" in last and control.trainer_state(last["trainer"]) in REUSABLE:
        job = last["trainer"]
    if deployment is None and "deployment" in last:
        found = control.deployment(last["deployment"])
        if found is not None and not found.is_gone and found.state != "FAILED":
            deployment = last["deployment"]
    connection = TrainerConnection(
        job or new_run_id(run_name, "trainer"), deployment or new_run_id(run_name, "student")
    )
    if job is None or control.trainer_state(job) is None:
        owned.add_trainer(connection.trainer_job, "keep" if options.trainer.keep else "delete")
    found = None if deployment is None else control.deployment(deployment)
    if found is None or found.is_gone:
        connection.fresh_deployment = True
        owned.add_deployment(connection.deployment, options.deployment.cleanup)
    owned.record_student(connection.trainer_job, connection.deployment)
    return connection


def provision_trainer(
    options: FireworksStudentOptions,
    connection: TrainerConnection,
    base_url: str,
    control: ControlPlane,
    owned: OwnedResources,
    stop: Callable[[], bool],
) -> None:
    """Make or reuse trainer and deployment, and open a training client; blocking, for as long as the queue is.

    Raises:
        RunFailedError: if `stop` says so before the trainer is requested.
    """
    if not connection.fresh_deployment:
        _wake(control, connection.deployment, options, owned, stop)
    if stop():
        raise RunFailedError("the run ended before its trainer was made")
    os.environ.setdefault("TINKER_TELEMETRY", "0")  # closing waits 30 s for it where the service is down
    connection.connect(_service_client(options, connection, base_url), options)


def _service_client(options: FireworksStudentOptions, connection: TrainerConnection, base_url: str) -> Any:  # noqa: ANN401 - the SDK's client
    """The SDK's client with all the options; it requests nothing yet."""
    from fireworks.training.sdk import FiretitanServiceClient

    trainer, deployment, timeouts = options.trainer, options.deployment, options.timeouts
    capacity = {"max_lora_rank": options.lora_rank} if options.lora_rank else {"lora_rank": 0}
    return FiretitanServiceClient.from_firetitan_config(
        api_key=api_key(),
        base_url=base_url,
        base_model=options.model,
        tokenizer_model=options.tokenizer_model,
        training_shape_id=trainer.training_shape_id,
        trainer_job_id=connection.trainer_job,
        deployment_id=connection.deployment,
        deployment_shape=deployment.deployment_shape,
        create_deployment=True,
        replica_count=deployment.replica_count,
        learning_rate=options.learning_rate,
        region=trainer.region,
        custom_image_tag=trainer.custom_image_tag,
        trainer_replica_count=trainer.replica_count,
        use_reservation=trainer.use_reservation,
        inactivity_timeout=_seconds(trainer.inactivity_timeout),
        hot_load_transition_type=deployment.hot_load_transition_type,
        disable_speculative_decoding=deployment.disable_speculative_decoding,
        trainer_timeout_s=timeouts.trainer,
        trainer_pending_timeout_s=timeouts.trainer_pending,
        deployment_timeout_s=timeouts.deployment,
        reattach_settle_timeout_s=timeouts.reattach_settle,
        hotload_timeout_s=timeouts.weight_sync,
        gradient_accumulation_steps=None,  # its default makes the SDK warn of itself
        cleanup_trainer_on_close=False,  # we do it ourselves, and look whether it worked
        cleanup_deployment_on_close=None,
        **capacity,
    )


def _seconds(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _wake(
    control: ControlPlane,
    identifier: str,
    options: FireworksStudentOptions,
    owned: OwnedResources,
    stop: Callable[[], bool],
) -> None:
    """The SDK reuses a deployment without looking at its replicas; an earlier run's clean-up left it none."""
    found = control.deployment(identifier)
    if found is None or not found.costs_nothing or found.is_gone:
        return
    owned.add_woken(identifier, options.deployment.cleanup)
    control.scale(identifier, options.deployment.replica_count)
    control.wait_ready(identifier, options.timeouts.deployment, probe=True, stop=stop)
