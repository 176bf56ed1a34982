"""What can be wrong with a teacher at Fireworks before anything is made, and what would be made or reused."""

from collections.abc import Iterator

from distillkit_builtin.fireworks.control_plane import ControlPlane
from distillkit_builtin.fireworks.options import FireworksScorerOptions
from distillkit_builtin.fireworks.provision_teacher import TeacherRequest, require_usable
from distillkit_builtin.fireworks.requirements import address_problem
from distillkit_builtin.fireworks.resource_names import DEPLOYMENT_SHAPE, id_problem, is_base_model, model_problem
from distillkit_builtin.fireworks.service import FireworksService


def option_problems(model: str, options: FireworksScorerOptions) -> Iterator[str | None]:
    """What is wrong with the options alone, one line each; None for each that is right."""
    deployment = options.deployment
    yield model_problem(model)
    if deployment.deployment_id is not None:
        yield id_problem("deployment.deployment_id", deployment.deployment_id)
    if deployment.deployment_shape is not None and not DEPLOYMENT_SHAPE.fullmatch(deployment.deployment_shape):
        yield (
            f"deployment.deployment_shape {deployment.deployment_shape!r}: wants accounts/NAME/deploymentShapes/NAME"
        )
    if options.inference_url is not None:
        yield address_problem("inference_url", options.inference_url)
    changed = [
        f"deployment.{name}"
        for name, field in type(deployment).model_fields.items()
        if getattr(deployment, name) != field.default
    ]
    if options.timeouts.deployment != type(options.timeouts).model_fields["deployment"].default:
        changed.append("timeouts.deployment")
    if changed and not is_base_model(model):
        yield (
            f"{', '.join(changed)}: model {model!r} is used as it is, so there is no deployment to make; a base model "
            "is accounts/NAME/models/NAME"
        )


def teacher_note(service: FireworksService, request: TeacherRequest) -> str:
    """What would be made or reused for a teacher.

    Raises:
        InputError: if what exists cannot be used, or another plugin wants the same deployment to be another one.
    """
    service.require_fitting(request)
    if not is_base_model(request.model):
        return f"{request.model}, as it is"
    identifier = service.deployment_ids()[request.key]

    def query(control: ControlPlane) -> str:
        found = control.deployment(identifier)
        require_usable(identifier, found, request)
        if found is None or found.is_gone:
            return f"{request.model}: frozen deployment {identifier} is made, {request.replica_count} replica(s)"
        if found.costs_nothing:
            return f"{request.model}: deployment {identifier} is woken, {request.replica_count} replica(s)"
        return f"{request.model}: deployment {identifier} is reused as it is, {found.max_replicas} replica(s)"

    return service.query_control_plane(f"looking for the deployment of teacher {request.model}", query)
