"""What can be wrong with student `fireworks` before anything is made, and what would be made."""

from collections.abc import Iterator, Sequence

from distillkit.errors import InputError
from distillkit.roles.plugin import CheckReport
from distillkit_builtin.fireworks.control_plane import ControlPlane
from distillkit_builtin.fireworks.options import FireworksStudentOptions
from distillkit_builtin.fireworks.resource_names import (
    DEPLOYMENT_SHAPE,
    TRAINING_SHAPE,
    base_model_problem,
    checkpoint_problem,
    id_problem,
)
from distillkit_builtin.fireworks.service import FireworksService

OF_A_NEW_TRAINER = (
    *("trainer.inactivity_timeout", "trainer.replica_count", "trainer.region"),
    *("trainer.use_reservation", "trainer.custom_image_tag"),
)
OF_A_NEW_DEPLOYMENT = ("trainer.region", "deployment.disable_speculative_decoding")
"""The options that cannot change one that exists."""


def option_problems(options: FireworksStudentOptions) -> Iterator[str | None]:
    """What is wrong with the options alone, one line each; None for each that is right."""
    yield base_model_problem(options.model)
    trainer, deployment = options.trainer, options.deployment
    if not TRAINING_SHAPE.fullmatch(trainer.training_shape_id):
        yield (
            f"trainer.training_shape_id {trainer.training_shape_id!r}: wants accounts/NAME/trainingShapes/NAME, with "
            "/versions/NAME behind it for one version"
        )
    if deployment.deployment_shape is not None and not DEPLOYMENT_SHAPE.fullmatch(deployment.deployment_shape):
        yield (
            f"deployment.deployment_shape {deployment.deployment_shape!r}: wants accounts/NAME/deploymentShapes/NAME"
        )
    chosen = {
        "trainer.job_id": trainer.job_id,
        "deployment.deployment_id": deployment.deployment_id,
        "output_model_id": options.output_model_id,
    }
    yield from (id_problem(key, identifier) for key, identifier in chosen.items() if identifier is not None)
    if options.init_from_checkpoint is not None and options.warm_start_from_adapter is not None:
        yield "init_from_checkpoint and warm_start_from_adapter cannot both say what the student starts from"
    if options.init_from_checkpoint is not None:
        yield checkpoint_problem(options.init_from_checkpoint, trainer.job_id)
    if options.warm_start_from_adapter is not None and not options.lora_rank:
        yield "warm_start_from_adapter needs lora_rank above 0"


def student_report(options: FireworksStudentOptions, service: FireworksService) -> tuple[CheckReport, int | None]:
    """What would be made or reused, and the context length in tokens, where it is known.

    Raises:
        InputError: if the service does not know what the options name.
    """
    shape_id = options.trainer.training_shape_id

    def query(control: ControlPlane) -> tuple[list[str], int]:
        shape = control.training_shape(shape_id)
        service.student_shape = options.deployment.deployment_shape or shape.deployment_shape
        notes = [
            f"student: {options.model}, {_trained(options)}, {_trainer(options, control)}",
            _sampling(options, control),
        ]
        return notes, int(shape.max_supported_context_length or 0)

    notes, supported = service.query_control_plane(f"looking up training shape {shape_id}", query)
    length = options.max_seq_len or supported or None
    if supported and length is not None and length > supported:
        raise InputError(f"student.max_seq_len is {length}; training shape {shape_id} supports {supported} tokens")
    return CheckReport(tuple(notes)), length


def _trained(options: FireworksStudentOptions) -> str:
    return f"LoRA of rank {options.lora_rank}" if options.lora_rank else "all weights"


def _trainer(options: FireworksStudentOptions, control: ControlPlane) -> str:
    job = options.trainer.job_id
    state = None if job is None else control.trainer_state(job)
    if not state:
        return f"a trainer of {options.trainer.training_shape_id} is made"
    return f"trainer {job} is reused ({state}){_options_too_late(options, OF_A_NEW_TRAINER)}"


def _sampling(options: FireworksStudentOptions, control: ControlPlane) -> str:
    deployment = options.deployment
    identifier = deployment.deployment_id
    found = None if identifier is None else control.deployment(identifier)
    if found is None or found.is_gone:
        return f"student's sampling deployment is made, {deployment.replica_count} replica(s)"
    if found.base_model not in (None, options.model):
        raise InputError(f"student.deployment.deployment_id {identifier!r} exists and serves {found.base_model}")
    if found.state == "FAILED":
        raise InputError(
            f"student.deployment.deployment_id {identifier!r} exists and is FAILED; delete it, or choose another"
        )
    kept = _options_too_late(options, OF_A_NEW_DEPLOYMENT)
    return f"student's sampling deployment {identifier} is reused ({found.max_replicas} replica(s)){kept}"


def _options_too_late(options: FireworksStudentOptions, keys: Sequence[str]) -> str:
    """Which of these options, named as `trainer.region`, are set and come too late."""
    changed = []
    for key in keys:
        section, _, name = key.partition(".")
        group = getattr(options, section)
        if getattr(group, name) != type(group).model_fields[name].default:
            changed.append(key)
    return f", with its own {', '.join(changed)}" if changed else ""
