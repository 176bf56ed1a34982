"""What can be wrong with student `fireworks` before anything is made, and what would be made."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from distillkit.errors import InputError
from distillkit.roles.plugin import CheckReport
from distillkit_builtin.fireworks.control_plane import Control
from distillkit_builtin.fireworks.resource_names import (
    DEPLOYMENT_SHAPE,
    TRAINING_SHAPE,
    base_model_problem,
    id_problem,
)
from distillkit_builtin.fireworks.service import Service

if TYPE_CHECKING:
    from distillkit_builtin.fireworks.student import FireworksStudent

OF_A_NEW_TRAINER = ("inactivity_timeout", "trainer_replica_count", "region", "use_reservation", "custom_image_tag")
OF_A_NEW_DEPLOYMENT = ("region", "disable_speculative_decoding")
"""What cannot be changed of one that exists."""


def option_problems(options: "FireworksStudent") -> Iterator[str | None]:
    """What is wrong with the options alone."""
    yield base_model_problem(options.model)
    if not TRAINING_SHAPE.fullmatch(options.training_shape_id):
        yield (
            f"training_shape_id {options.training_shape_id!r}: wants accounts/NAME/trainingShapes/NAME, with "
            "/versions/NAME behind it for one version"
        )
    if options.deployment_shape is not None and not DEPLOYMENT_SHAPE.fullmatch(options.deployment_shape):
        yield f"deployment_shape {options.deployment_shape!r}: wants accounts/NAME/deploymentShapes/NAME"
    for name in ("trainer_job_id", "deployment_id", "output_model_id"):
        chosen = getattr(options, name)
        yield None if chosen is None else id_problem(name, chosen)
    if options.init_from_checkpoint is not None and options.warm_start_from_adapter is not None:
        yield "init_from_checkpoint and warm_start_from_adapter cannot both say what the student starts from"
    if options.init_from_checkpoint is not None and options.init_from_checkpoint.count(":") > 1:
        yield f"init_from_checkpoint {options.init_from_checkpoint!r}: wants JOB:NAME"
    if options.warm_start_from_adapter is not None and not options.lora_rank:
        yield "warm_start_from_adapter needs lora_rank above 0"
    if options.sampler is not None:
        yield "it samples from its own deployment: its weights stay at the service, so student.sampler cannot get them"


def student_report(options: "FireworksStudent", service: Service) -> tuple[CheckReport, int | None]:
    """What would be made or reused, and the context length. Raises InputError for what the service does not know."""

    def ask(control: Control) -> tuple[list[str], int]:
        shape = control.training_shape(options.training_shape_id)
        service.student_shape = options.deployment_shape or shape.deployment_shape
        notes = [
            f"student: {options.model}, {_what(options)}, {_trainer(options, control)}",
            _sampling(options, control),
        ]
        return notes, int(shape.max_supported_context_length or 0)

    notes, supported = service.inquire(f"looking up training shape {options.training_shape_id}", ask)
    length = options.max_seq_len or supported or None
    if supported and length is not None and length > supported:
        raise InputError(
            f"student.max_seq_len is {length}; training shape {options.training_shape_id} supports {supported} tokens"
        )
    return CheckReport(tuple(notes)), length


def _what(options: "FireworksStudent") -> str:
    return f"LoRA of rank {options.lora_rank}" if options.lora_rank else "all weights"


def _trainer(options: "FireworksStudent", control: Control) -> str:
    job = options.trainer_job_id
    state = None if job is None else control.trainer_state(job)
    if not state:
        return f"a trainer of {options.training_shape_id} is made"
    return f"trainer {job} is reused ({state}){_kept(options, OF_A_NEW_TRAINER)}"


def _sampling(options: "FireworksStudent", control: Control) -> str:
    identifier = options.deployment_id
    found = None if identifier is None else control.deployment(identifier)
    if found is None or found.is_gone:
        return f"student's sampling deployment is made, {options.replica_count} replica(s)"
    if found.base_model not in (None, options.model):
        raise InputError(f"student.deployment_id {identifier!r} exists and serves {found.base_model}")
    if found.state == "FAILED":
        raise InputError(f"student.deployment_id {identifier!r} exists and is FAILED; delete it, or choose another")
    kept = _kept(options, OF_A_NEW_DEPLOYMENT)
    return f"student's sampling deployment {identifier} is reused ({found.max_replicas} replica(s)){kept}"


def _kept(options: "FireworksStudent", names: Sequence[str]) -> str:
    fields = type(options).model_fields
    changed = [name for name in names if getattr(options, name) != fields[name].default]
    return f", with its own {', '.join(changed)}" if changed else ""
