"""Frozen teachers: a deployment made or reused for a base model, or whatever serves already, as it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from distillkit.errors import InputError, RunFailedError
from distillkit_builtin.fireworks.control_plane import ControlPlane, Deployment
from distillkit_builtin.fireworks.options import Cleanup, Concurrency, FireworksScorerOptions
from distillkit_builtin.fireworks.owned_resources import OwnedResources
from distillkit_builtin.fireworks.resource_names import id_problem, is_base_model, teacher_deployment_id

TeacherKey = tuple[str, str | None]
"""Model, and the deployment id where the user chose one: two routes with one key share one deployment."""


@dataclass(frozen=True, slots=True)
class TeacherRequest:
    """What one teacher, or several routes to one model, ask for."""

    model: str
    deployment_id: str | None
    deployment_shape: str | None
    replica_count: int
    timeout: float
    """Seconds to wait for the deployment."""
    cleanup: Cleanup
    inference_url: str | None
    concurrency: Concurrency
    slug: str = field(compare=False)
    """The slug of the teacher's first route, for metric names."""

    @classmethod
    def of(cls, model: str, slug: str, options: FireworksScorerOptions) -> "TeacherRequest":
        """The request that the options of one route's scorer make."""
        return cls(
            model=model,
            deployment_id=options.deployment.deployment_id,
            deployment_shape=options.deployment.deployment_shape,
            replica_count=options.deployment.replica_count,
            timeout=options.timeouts.deployment,
            cleanup=options.deployment.cleanup,
            inference_url=options.inference_url,
            concurrency=options.concurrency,
            slug=slug,
        )

    @property
    def key(self) -> TeacherKey:
        """The key of the deployment, which routes of equal key share."""
        return self.model, self.deployment_id


def deployment_ids(
    requests: Mapping[TeacherKey, TeacherRequest], student_deployment: str | None
) -> dict[TeacherKey, str]:
    """The deployment of each base model. Raises InputError if two models would share one."""
    made = [request for request in requests.values() if is_base_model(request.model)]
    several = len({request.model for request in made}) > 1
    ids = {
        request.key: request.deployment_id or teacher_deployment_id(request.model, hashed=several) for request in made
    }
    users: dict[str, str] = {} if student_deployment is None else {student_deployment: "the student"}
    for request in made:
        identifier = ids[request.key]
        who = f"teacher model {request.model}"
        problem = id_problem(f"deployment.deployment_id of {who}", identifier)
        if problem:
            raise InputError(problem)
        if users.setdefault(identifier, who) != who:
            raise InputError(
                f"deployment id {identifier!r} is requested by {users[identifier]} and by {who}; a deployment serves "
                "one model: choose another deployment.deployment_id"
            )
    return ids


def require_usable(identifier: str, found: Deployment | None, request: TeacherRequest) -> None:
    """Raise InputError if a deployment that exists cannot be this teacher's."""
    if found is None or found.is_gone:
        return
    if found.base_model is not None and found.base_model != request.model:
        raise InputError(
            f"deployment {identifier!r} exists and serves {found.base_model}, not {request.model}; choose another "
            "deployment_id for this teacher"
        )
    if found.state == "FAILED":
        raise InputError(
            f"deployment {identifier!r} exists and is FAILED; delete it, or choose another deployment_id for "
            f"teacher {request.model}"
        )


def provision_teacher(
    control: ControlPlane,
    identifier: str,
    request: TeacherRequest,
    owned: OwnedResources,
    stop: Callable[[], bool],
    default_shape: str | None,
) -> str:
    """Make the deployment (of `default_shape`, where the request names none), reuse it, or wake it; blocking.

    Returns:
        The name that requests ask for.
    """
    found = control.deployment(identifier)
    mine = identifier in owned.deployments
    if not mine:
        require_usable(identifier, found, request)
    if stop():
        raise RunFailedError(f"the run ended before deployment {identifier!r} was made")
    woken = False
    if found is None or found.is_gone or (mine and found.state == "FAILED"):
        owned.add_deployment(identifier, request.cleanup)
        control.create_deployment(
            identifier, request.model, request.deployment_shape or default_shape, request.replica_count
        )
    elif found.costs_nothing:
        woken = True
        owned.add_woken(identifier, request.cleanup)
        control.scale(identifier, request.replica_count)
    return control.wait_ready(identifier, request.timeout, probe=woken, stop=stop)
