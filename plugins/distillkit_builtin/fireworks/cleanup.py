"""Letting go of what a run made, and looking whether it went: the SDK logs a failed clean-up and says nothing."""

import time
from collections.abc import Callable
from functools import partial

from distillkit_builtin.fireworks.control_plane import GONE, Control
from distillkit_builtin.fireworks.owned_resources import Belongings, Cleanup
from distillkit_builtin.fireworks.sdk_errors import explain

ATTEMPTS = 3
PAUSE_SECONDS = 1.0


def clean_up(
    control: Control, belongings: Belongings, *, unfinished: bool = False, in_flight: bool = False
) -> list[str]:
    """Delete trainers, scale deployments to zero or delete them; blocking.

    Args:
        control: a connection of the calling thread's own.
        belongings: what the run made; what is gone is taken out, what is to be kept stays.
        unfinished: provisioning did not end, or failed: what was made and is not ready is deleted, which also ends the
            SDK's waiting for it.
        in_flight: a request to make something may still be on its way, so nothing is taken out of `belongings` yet.

    Returns:
        One line for each thing that is still there, with how to remove it.
    """
    problems: list[str] = []
    for job, how in list(belongings.trainers.items()):
        if how == "delete" or unfinished:
            left = _until(partial(control.delete_trainer, job), partial(_trainer_left, control, job))
            _report(belongings, job, left, f"trainer job {job!r} may still run", problems, in_flight)
    for identifier, wanted in list(belongings.deployments.items()):
        if wanted != "keep" or unfinished:
            made = unfinished and identifier not in belongings.woken
            left = _until(
                partial(_release, control, identifier, wanted, delete_unready=made),
                partial(_deployment_left, control, identifier, may_stay=wanted == "keep"),
            )
            what = f"deployment {identifier!r} may still have replicas"
            _report(belongings, identifier, left, what, problems, in_flight)
    return problems


def _release(control: Control, identifier: str, how: Cleanup, *, delete_unready: bool) -> None:
    found = control.deployment(identifier)
    if found is None or found.is_gone:
        return
    if how == "delete" or (delete_unready and found.state != "READY"):
        control.delete_deployment(identifier)
    elif how == "scale_to_zero" and not found.costs_nothing:
        control.scale(identifier, 0)


def _trainer_left(control: Control, job: str) -> str | None:
    state = control.trainer_state(job)
    return None if state is None or state in GONE else f"its state is {state}"


def _deployment_left(control: Control, identifier: str, *, may_stay: bool) -> str | None:
    found = control.deployment(identifier)
    if found is None or found.costs_nothing or (may_stay and found.state == "READY"):
        return None
    return f"it is {found.state} with up to {found.max_replicas} replicas"


def _until(ask: Callable[[], None], what_is_left: Callable[[], str | None]) -> str | None:
    """Ask until nothing is left; what is wrong otherwise."""
    left: str | None = "it was not asked for"
    for attempt in range(ATTEMPTS):
        try:
            ask()
            left = what_is_left()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and then reported
            left = explain(error)
        if left is None:
            return None
        time.sleep(PAUSE_SECONDS * attempt)
    return left


def _report(
    belongings: Belongings, identifier: str, problem: str | None, what: str, problems: list[str], in_flight: bool
) -> None:
    if problem is None:
        if not in_flight:  # what is not there may only be not there yet
            belongings.forget(identifier)
    else:
        problems.append(f"{what}: {problem}; remove it at https://app.fireworks.ai or with firectl")
