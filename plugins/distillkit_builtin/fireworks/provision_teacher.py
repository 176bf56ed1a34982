"""Frozen teachers: a deployment made or reused for a base model, or whatever serves already, as it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.fireworks.control_plane import Control, Deployment
from distillkit_builtin.fireworks.owned_resources import Belongings, Cleanup
from distillkit_builtin.fireworks.resource_names import id_problem, is_base_model, teacher_deployment_id

TeacherKey = tuple[str, str | None]
"""Model, and the deployment id where the user chose one: two routes with one key share one deployment."""


@dataclass(frozen=True, slots=True)
class TeacherWish:
    """What one teacher, or several routes to one model, ask for."""

    model: str
    deployment_id: str | None
    deployment_shape: str | None
    replica_count: int
    timeout: float
    """Seconds to wait for the deployment."""
    cleanup: Cleanup
    inference_url: str | None
    initial_concurrency: int
    max_concurrency: int
    slug: str = field(compare=False)
    """Of the first route, for metric names."""

    @property
    def key(self) -> TeacherKey:
        """What it shares with other routes."""
        return self.model, self.deployment_id


def deployment_ids(wishes: Mapping[TeacherKey, TeacherWish], student_deployment: str | None) -> dict[TeacherKey, str]:
    """The deployment of each base model. Raises InputError if two models would share one."""
    made = [wish for wish in wishes.values() if is_base_model(wish.model)]
    several = len({wish.model for wish in made}) > 1
    ids = {wish.key: wish.deployment_id or teacher_deployment_id(wish.model, hashed=several) for wish in made}
    users: dict[str, str] = {} if student_deployment is None else {student_deployment: "the student"}
    for wish in made:
        identifier = ids[wish.key]
        who = f"teacher model {wish.model}"
        problem = id_problem(f"deployment_id of {who}", identifier)
        if problem:
            raise InputError(problem)
        if users.setdefault(identifier, who) != who:
            raise InputError(
                f"deployment id {identifier!r} is wanted by {users[identifier]} and by {who}; a deployment serves one "
                "model: choose another deployment_id"
            )
    return ids


def require_usable(identifier: str, found: Deployment | None, wish: TeacherWish) -> None:
    """Raise InputError if a deployment that exists cannot be this teacher's."""
    if found is None or found.is_gone:
        return
    if found.base_model is not None and found.base_model != wish.model:
        raise InputError(
            f"deployment {identifier!r} exists and serves {found.base_model}, not {wish.model}; choose another "
            "deployment_id for this teacher"
        )
    if found.state == "FAILED":
        raise InputError(
            f"deployment {identifier!r} exists and is FAILED; delete it, or choose another deployment_id for "
            f"teacher {wish.model}"
        )


def provision_teacher(
    control: Control,
    identifier: str,
    wish: TeacherWish,
    belongings: Belongings,
    stop: Callable[[], bool],
    default_shape: str | None,
) -> str:
    """Make the deployment (of `default_shape`, where the wish names none), reuse it, or wake it; blocking.

    Returns:
        The name that requests ask for.
    """
    found = control.deployment(identifier)
    mine = identifier in belongings.deployments
    if not mine:
        require_usable(identifier, found, wish)
    if stop():
        raise RunFailedError(f"the run ended before deployment {identifier!r} was made")
    woken = False
    if found is None or found.is_gone or (mine and found.state == "FAILED"):
        belongings.add_deployment(identifier, wish.cleanup)
        control.create_deployment(identifier, wish.model, wish.deployment_shape or default_shape, wish.replica_count)
    elif found.costs_nothing:
        woken = True
        belongings.add_woken(identifier, wish.cleanup)
        control.scale(identifier, wish.replica_count)
    return control.wait_ready(identifier, wish.timeout, probe=woken, stop=stop)
