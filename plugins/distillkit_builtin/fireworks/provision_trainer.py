"""The student's trainer job and its hot-loaded deployment: made, reused after a kill, or the user's own."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from distillkit.errors import RunFailedError
from distillkit_builtin.fireworks.control_plane import Control, api_key
from distillkit_builtin.fireworks.owned_resources import Belongings
from distillkit_builtin.fireworks.resource_names import new_run_id

if TYPE_CHECKING:
    from distillkit_builtin.fireworks.student import FireworksStudent

REUSABLE = ("RUNNING", "CREATING", "PENDING", "FAILED", "CANCELLED", "PAUSED", "COMPLETED")
"""The states of a trainer job that the SDK waits for or wakes; of any other it says that it is over."""


@dataclass(slots=True)
class TrainerParts:
    """What provisioning a student gives. `service` is there as soon as it was made, ready or not."""

    trainer_job: str
    deployment: str
    service: Any = None
    client: Any = None
    fresh_deployment: bool = False
    """It was made just now, so it serves the base model."""


def choose_ids(options: "FireworksStudent", run_name: str, belongings: Belongings, control: Control) -> TrainerParts:
    """The ids of trainer and deployment, and, before they are asked for, the note of what will be ours.

    The user's own are used. Those of a run that is resumed are taken up where they still exist; a trainer that was
    cleaned up cannot come back, so there is a new one then.
    """
    job, deployment = options.trainer_job_id, options.deployment_id
    last = belongings.student
    if job is None and "trainer" in last and control.trainer_state(last["trainer"]) in REUSABLE:
        job = last["trainer"]
    if deployment is None and "deployment" in last:
        found = control.deployment(last["deployment"])
        if found is not None and not found.is_gone and found.state != "FAILED":
            deployment = last["deployment"]
    parts = TrainerParts(job or new_run_id(run_name, "trainer"), deployment or new_run_id(run_name, "student"))
    if job is None or control.trainer_state(job) is None:
        belongings.add_trainer(parts.trainer_job, "keep" if options.keep_trainer else "delete")
    found = None if deployment is None else control.deployment(deployment)
    if found is None or found.is_gone:
        parts.fresh_deployment = True
        belongings.add_deployment(parts.deployment, options.deployment_cleanup)
    belongings.note_student(parts.trainer_job, parts.deployment)
    return parts


def provision_trainer(
    options: "FireworksStudent",
    parts: TrainerParts,
    base_url: str,
    control: Control,
    belongings: Belongings,
    stop: Callable[[], bool],
) -> None:
    """Make or reuse trainer and deployment, and open a training client; blocking, for as long as the queue is."""
    from fireworks.training.sdk import FiretitanServiceClient

    if not parts.fresh_deployment:
        _wake(control, parts.deployment, options, belongings, stop)
    if stop():
        raise RunFailedError("the run ended before its trainer was made")
    os.environ.setdefault("TINKER_TELEMETRY", "0")  # closing waits 30 s for it where the service is down
    capacity = {"max_lora_rank": options.lora_rank} if options.lora_rank else {"lora_rank": 0}
    parts.service = FiretitanServiceClient.from_firetitan_config(
        api_key=api_key(),
        base_url=base_url,
        base_model=options.model,
        tokenizer_model=options.tokenizer_model,
        training_shape_id=options.training_shape_id,
        trainer_job_id=parts.trainer_job,
        deployment_id=parts.deployment,
        deployment_shape=options.deployment_shape,
        create_deployment=True,
        replica_count=options.replica_count,
        learning_rate=options.learning_rate,
        region=options.region,
        custom_image_tag=options.custom_image_tag,
        trainer_replica_count=options.trainer_replica_count,
        use_reservation=options.use_reservation,
        inactivity_timeout=_seconds(options.inactivity_timeout),
        hot_load_transition_type=options.hot_load_transition_type,
        disable_speculative_decoding=options.disable_speculative_decoding,
        trainer_timeout_s=options.trainer_timeout,
        trainer_pending_timeout_s=options.trainer_pending_timeout,
        deployment_timeout_s=options.deployment_timeout,
        reattach_settle_timeout_s=options.reattach_settle_timeout,
        hotload_timeout_s=options.weight_sync_timeout,
        gradient_accumulation_steps=None,  # its default makes the SDK warn of itself
        cleanup_trainer_on_close=False,  # we do it ourselves, and look whether it worked
        cleanup_deployment_on_close=None,
        **capacity,
    )
    parts.client = new_client(options, parts.service)


def new_client(options: "FireworksStudent", service: Any) -> Any:  # noqa: ANN401 - the SDK's clients
    """A client of a new model, for a LoRA; for all weights a trainer has one model, and this is it. Blocking."""
    return service.create_training_client(options.model, lora_rank=options.lora_rank, lora_alpha=options.lora_alpha)


def _seconds(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _wake(
    control: Control,
    identifier: str,
    options: "FireworksStudent",
    belongings: Belongings,
    stop: Callable[[], bool],
) -> None:
    """The SDK reuses a deployment without looking at its replicas; an earlier run's clean-up left it none."""
    found = control.deployment(identifier)
    if found is None or not found.costs_nothing or found.is_gone:
        return
    belongings.add_woken(identifier, options.deployment_cleanup)
    control.scale(identifier, options.replica_count)
    control.wait_ready(identifier, options.deployment_timeout, probe=True, stop=stop)
