"""Which of the recipe's fields become which keys of a `RunConfig`; every other one must keep its default."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from distillkit_builtin.fireworks.recipe.config import (
    ConcurrencyConfig,
    Config,
    DeployConfig,
    MultiTeacherConfig,
    RunnerConfig,
    TeacherConfig,
    TrainerConfig,
    WandBConfig,
)
from distillkit_builtin.fireworks.recipe.distill_mode import OF_SAMPLED

COPIED: Mapping[str, str] = {
    "base_model": "student.model",
    "learning_rate": "student.learning_rate",
    "completions_per_prompt": "sampling.completions_per_prompt",
    "max_completion_tokens": "sampling.max_completion_tokens",
    "temperature": "sampling.temperature",
    "epochs": "data.epochs",
    "max_rows": "data.max_rows",
    "max_seq_len": "student.max_seq_len",
    "lora_rank": "student.lora_rank",
    "lora_alpha": "student.lora_alpha",
    "prompt_groups_per_step": "train.prompt_groups_per_step",
    "grad_accumulation_normalization": "student.grad_accumulation_normalization",
    "grad_clip_norm": "student.grad_clip_norm",
    "init_from_checkpoint": "student.init_from_checkpoint",
    "warm_start_from_adapter": "student.warm_start_from_adapter",
    "output_model_id": "student.output_model_id",
    "save_final_checkpoint": "student.save_final_checkpoint",
    "weight_sync_interval": "train.weight_sync_interval",
    "weight_sync_before_training": "student.weight_sync_before_training",
    "weight_sync_timeout": "student.timeouts.weight_sync",
    "dcp_save_interval": "train.save_every",
    "trainer.job_id": "student.trainer.job_id",
    "trainer.training_shape_id": "student.trainer.training_shape_id",
    "trainer.timeout_s": "student.timeouts.trainer",
    "trainer.pending_timeout_s": "student.timeouts.trainer_pending",
    "trainer.replica_count": "student.trainer.replica_count",
    "trainer.region": "student.trainer.region",
    "trainer.use_reservation": "student.trainer.use_reservation",
    "trainer.custom_image_tag": "student.trainer.custom_image_tag",
    "deployment.deployment_id": "student.deployment.deployment_id",
    "deployment.deployment_shape": "student.deployment.deployment_shape",
    "deployment.deployment_timeout_s": "student.timeouts.deployment",
    "deployment.tokenizer_model": "student.tokenizer_model",
    "deployment.sample_timeout": "student.timeouts.request",
    "deployment.replica_count": "student.deployment.replica_count",
    "deployment.hot_load_transition_type": "student.deployment.hot_load_transition_type",
    "deployment.reattach_settle_timeout_s": "student.timeouts.reattach_settle",
    "deployment.disable_speculative_decoding": "student.deployment.disable_speculative_decoding",
    "concurrency.initial_window": "student.concurrency.initial",
    "concurrency.max_window": "student.concurrency.max",
}
"""Recipe field to config key; None in the recipe is the key's own default."""

COMPUTED: Mapping[str, str] = {
    **OF_SAMPLED,
    "distill_mode": "loss.name",
    "sdft_top_k": "loss.k",
    "multi_teacher.teachers[].blend_weight": "teachers[].weight",
    "log_path": "log_path",
    "dataset": "data.path",
    "step_timeout": "student.timeouts.step",
    "trainer.inactivity_timeout": "student.trainer.inactivity_timeout",
    "teacher_model": "teachers.0.model",
    "teacher_deployment_id": "teachers.0.scorer.deployment.deployment_id",
    "teacher_deployment_shape": "teachers[].scorer.deployment.deployment_shape",
    "teacher_replica_count": "teachers[].scorer.deployment.replica_count",
    "teacher_deployment_timeout_s": "teachers[].scorer.timeouts.deployment",
    "teacher_inference_url": "teachers[].scorer.inference_url",
    "multi_teacher": "teachers",
    "multi_teacher.teachers": "teachers",
    "multi_teacher.route_key": "router.route_key",
    "multi_teacher.teachers[].model": "teachers[].model",
    "multi_teacher.teachers[].route_value": "teachers[].route_value",
    "multi_teacher.teachers[].deployment_id": "teachers[].scorer.deployment.deployment_id",
    "multi_teacher.teachers[].deployment_shape": "teachers[].scorer.deployment.deployment_shape",
    "multi_teacher.teachers[].teacher_messages_key": "teachers[].teacher_messages_key",
    "multi_teacher.teachers[].tokenizer_model": "teachers[].tokenizer_model",
    "trainer": "student.trainer",
    "deployment": "student.deployment",
    "concurrency": "student.concurrency",
    "wandb": "sinks",
    "wandb.entity": "sinks[].entity",
    "wandb.project": "sinks[].project",
    "wandb.run_name": "sinks[].run_name",
    "runner": "",
    "runner.status_file": "",
    "runner.metadata_file": "",
    "runner.metrics_file": "",
    "runner.output_model_path": "",
    "post_training_eval": "evaluators",
    "step_eval": "evaluators",
    "step_eval_interval": "train.eval_every",
    "eval_before_training": "evaluators",
}
"""What is computed; an empty key: the recipe's API does it, and a config cannot."""

STAFF = "the service takes it from its own staff alone"
PREEMPTIBLE = "it needs an admin's key, and the SDK has one switch for trainer and deployment together"
REASONS: Mapping[str, str] = {
    "rollout_base_model": "the student samples from its own weights",
    "concurrency.mode": "only adaptive is there; max_window limits it",
    "concurrency.max_concurrency": "set concurrency.max_window",
    "deployment.deployment_accelerator_type": "the deployment shape says which",
    "deployment.enable_hot_load": "the student's deployment is hot-loaded",
    "deployment.tokenizer_revision": "the tokenizer is read by name; a directory fixes a revision",
    "trainer.reference_training_shape_id": "distillation has no reference model",
    "trainer.reference_job_id": "distillation has no reference model",
    "trainer.cleanup_reference_on_close": "distillation has no reference model",
    "trainer.node_count": "the training shape says how many, and the SDK drops it; set trainer.replica_count for more",
    "trainer.extra_args": STAFF,
    "trainer.skip_validations": STAFF,
    "trainer.disable_inactivity_cleanup": STAFF,
    "trainer.purpose": "the platform sets it by itself",
    "trainer.managed_by": "the platform sets it by itself",
    "trainer.preemptible": PREEMPTIBLE,
    "deployment.preemptible": PREEMPTIBLE,
    "deployment.deployment_extra_args": STAFF,
    "deployment.extra_values": STAFF,
    "deployment.weight_sync_scope": "the SDK publishes through the trainer's bucket",
    "deployment.hot_load_bucket_type": "the SDK publishes through the trainer's bucket",
    "deployment.hot_load_trainer_job": "it is the run's own trainer",
}

Section = tuple[str, Any]
"""What its fields' names begin with in messages, and the dataclass."""
SECTIONS: Mapping[str, type] = {
    "": Config,
    "trainer.": TrainerConfig,
    "deployment.": DeployConfig,
    "concurrency.": ConcurrencyConfig,
    "wandb.": WandBConfig,
    "runner.": RunnerConfig,
    "multi_teacher.": MultiTeacherConfig,
    "multi_teacher.teachers[].": TeacherConfig,
}
"""All of the recipe's dataclasses, by the beginning of their fields' names in the tables above."""


def sections_of(cfg: Config) -> Iterator[Section]:
    """The config and every section in it that is set."""
    yield "", cfg
    for name in ("trainer", "deployment", "concurrency", "wandb", "runner"):
        yield f"{name}.", getattr(cfg, name)
    if cfg.multi_teacher is not None:
        yield "multi_teacher.", cfg.multi_teacher
        for index, teacher in enumerate(cfg.multi_teacher.teachers):
            yield f"multi_teacher.teachers[{index}].", teacher


def type_problems(cfg: Config) -> list[str]:
    """Sections that are something else, such as the cookbook's own dataclasses."""
    classes = {name: cls for name, cls in SECTIONS.items() if not name.startswith("multi_teacher.teachers")}
    found = {name: cfg if not name else getattr(cfg, name[:-1]) for name in classes}
    problems = [_type_problem(name[:-1], found[name], cls) for name, cls in classes.items() if found[name] is not None]
    teachers = cfg.multi_teacher.teachers if isinstance(cfg.multi_teacher, MultiTeacherConfig) else []
    problems += [
        _type_problem(f"multi_teacher.teachers[{i}]", teacher, TeacherConfig) for i, teacher in enumerate(teachers)
    ]
    return [problem for problem in problems if problem]


def _type_problem(where: str, value: object, cls: type) -> str | None:
    if isinstance(value, cls):
        return None
    name = f"{cls.__module__}.{cls.__qualname__}"
    return f"{where}: wants distillkit.recipes.distillation_loop.{cls.__name__} ({name}), not {type(value)!r}"


def refusals(cfg: Config) -> Iterator[str]:
    """One line for each field that is set away from its default and becomes nothing."""
    for where, section in sections_of(cfg):
        general = "multi_teacher.teachers[]." if where.startswith("multi_teacher.teachers[") else where
        for field in fields(section):
            name = general + field.name
            value = getattr(section, field.name)
            if name not in COPIED and name not in COMPUTED and value != default_of(field):
                reason = REASONS.get(name, "distillkit has nothing that it could become")
                yield f"{where}{field.name}: {value!r} cannot be honoured: {reason}"


def default_of(field: "Field[Any]") -> object:
    """The default value of a dataclass's field."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def value_of(cfg: Config, name: str) -> Any:  # noqa: ANN401 - of any field
    """The value of `trainer.job_id` and so on."""
    value: Any = cfg
    for part in name.split("."):
        value = getattr(value, part)
    return value
