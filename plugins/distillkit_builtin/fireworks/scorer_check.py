"""What can be wrong with a teacher at Fireworks before anything is made, and what would be made or reused."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from distillkit_builtin.fireworks.control_plane import Control
from distillkit_builtin.fireworks.provision_teacher import TeacherWish, require_usable
from distillkit_builtin.fireworks.requirements import address_problem
from distillkit_builtin.fireworks.resource_names import DEPLOYMENT_SHAPE, id_problem, is_base_model, model_problem
from distillkit_builtin.fireworks.service import Service

if TYPE_CHECKING:
    from distillkit_builtin.fireworks.scorer import FireworksScorer

FOR_A_DEPLOYMENT = ("deployment_id", "deployment_shape", "replica_count", "deployment_timeout", "deployment_cleanup")


def option_problems(options: "FireworksScorer") -> Iterator[str | None]:
    """What is wrong with the options alone."""
    model = options.teacher.model
    yield model_problem(model)
    if options.deployment_id is not None:
        yield id_problem("deployment_id", options.deployment_id)
    if options.deployment_shape is not None and not DEPLOYMENT_SHAPE.fullmatch(options.deployment_shape):
        yield f"deployment_shape {options.deployment_shape!r}: wants accounts/NAME/deploymentShapes/NAME"
    if options.inference_url is not None:
        yield address_problem("inference_url", options.inference_url)
    fields = type(options).model_fields
    changed = [name for name in FOR_A_DEPLOYMENT if getattr(options, name) != fields[name].default]
    if changed and not is_base_model(model):
        yield (
            f"{', '.join(changed)}: model {model!r} is used as it is, so there is no deployment to make; a base model "
            "is accounts/NAME/models/NAME"
        )


def teacher_notes(service: Service, wish: TeacherWish) -> list[str]:
    """What would be made or reused for a teacher, and for those before it whose deployments it renames.

    Raises InputError if what exists cannot be used.
    """
    if not is_base_model(wish.model):
        return [f"{wish.model}, as it is"]
    notes: list[str] = []
    for key, identifier in service.deployment_ids().items():
        if service.looked_at.get(key) != identifier or key == wish.key:
            service.looked_at[key] = identifier
            notes.append(_look(service, identifier, service.wishes[key]))
    return notes


def _look(service: Service, identifier: str, wish: TeacherWish) -> str:
    def ask(control: Control) -> str:
        found = control.deployment(identifier)
        require_usable(identifier, found, wish)
        if found is None or found.is_gone:
            return f"{wish.model}: frozen deployment {identifier} is made, {wish.replica_count} replica(s)"
        if found.costs_nothing:
            return f"{wish.model}: deployment {identifier} is woken, {wish.replica_count} replica(s)"
        return f"{wish.model}: deployment {identifier} is reused as it is, {found.max_replicas} replica(s)"

    return service.inquire(f"looking for the deployment of teacher {wish.model}", ask)
