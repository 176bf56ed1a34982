"""Releasing what a run made, and looking whether it went: the SDK logs a failed clean-up and says nothing."""

import contextlib
import time
from collections.abc import Callable
from functools import partial

from distillkit.errors import DistillkitError
from distillkit_builtin.fireworks.blocking_calls import call_in_thread
from distillkit_builtin.fireworks.control_plane import GONE, ControlPlane
from distillkit_builtin.fireworks.options import Cleanup
from distillkit_builtin.fireworks.owned_resources import OwnedResources
from distillkit_builtin.fireworks.sdk_errors import explain

ATTEMPTS = 3
PAUSE_SECONDS = 1.0
CLEANUP_SECONDS = 180.0


async def clean_up(
    base_url: str, owned: OwnedResources, *, unfinished: bool = False, in_flight: bool = False
) -> list[str]:
    """Delete trainers, scale deployments to zero or delete them.

    Args:
        base_url: the service.
        owned: what the run made; what is gone is taken out, what is to be kept stays.
        unfinished: provisioning did not end, or failed: what was made and is not ready is deleted, which also ends the
            SDK's waiting for it.
        in_flight: a request to make something may still be on its way, so nothing is taken out of `owned` yet.

    Returns:
        One line for each thing that is still there, with how to remove it.
    """

    def work() -> list[str]:
        with contextlib.closing(ControlPlane(base_url)) as control:
            return _clean_up(control, owned, unfinished=unfinished, in_flight=in_flight)

    try:
        return await call_in_thread("cleaning up", CLEANUP_SECONDS, work)
    except DistillkitError as error:
        return [f"{error}; still there may be: {owned.summary}"] if owned.summary else []


def _clean_up(control: ControlPlane, owned: OwnedResources, *, unfinished: bool, in_flight: bool) -> list[str]:
    problems: list[str] = []
    for job, how in list(owned.trainers.items()):
        if how == "delete" or unfinished:
            left = _repeat_until_gone(partial(control.delete_trainer, job), partial(_trainer_left, control, job))
            _report(owned, job, left, f"trainer job {job!r} may still run", problems, in_flight)
    for identifier, cleanup in list(owned.deployments.items()):
        if cleanup != "keep" or unfinished:
            made = unfinished and identifier not in owned.woken
            left = _repeat_until_gone(
                partial(_release, control, identifier, cleanup, delete_unready=made),
                partial(_deployment_left, control, identifier, may_stay=cleanup == "keep"),
            )
            what = f"deployment {identifier!r} may still have replicas"
            _report(owned, identifier, left, what, problems, in_flight)
    return problems


def _release(control: ControlPlane, identifier: str, how: Cleanup, *, delete_unready: bool) -> None:
    found = control.deployment(identifier)
    if found is None or found.is_gone:
        return
    if how == "delete" or (delete_unready and found.state != "READY"):
        control.delete_deployment(identifier)
    elif how == "scale_to_zero" and not found.costs_nothing:
        control.scale(identifier, 0)


def _trainer_left(control: ControlPlane, job: str) -> str | None:
    state = control.trainer_state(job)
    return None if state is None or state in GONE else f"its state is {state}"


def _deployment_left(control: ControlPlane, identifier: str, *, may_stay: bool) -> str | None:
    found = control.deployment(identifier)
    if found is None or found.costs_nothing or (may_stay and found.state == "READY"):
        return None
    return f"it is {found.state} with up to {found.max_replicas} replicas"


def _repeat_until_gone(request: Callable[[], None], what_is_left: Callable[[], str | None]) -> str | None:
    """Request it until nothing is left; returns what is left otherwise, as a reason."""
    left: str | None = "it was not requested"
    for attempt in range(ATTEMPTS):
        try:
            request()
            left = what_is_left()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and then reported
            left = explain(error)
        if left is None:
            return None
        time.sleep(PAUSE_SECONDS * attempt)
    return left


def _report(
    owned: OwnedResources, identifier: str, problem: str | None, what: str, problems: list[str], in_flight: bool
) -> None:
    if problem is None:
        if not in_flight:  # what is not there may only be not there yet
            owned.mark_released(identifier)
    else:
        problems.append(f"{what}: {problem}; remove it at https://app.fireworks.ai or with firectl")
