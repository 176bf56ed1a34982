"""The recipe's teachers, one or several, as `teachers` of a config."""

from collections.abc import Iterator
from typing import Any

from distillkit_builtin.fireworks.recipe.config import Config, TeacherConfig
from distillkit_builtin.fireworks.resource_names import is_base_model

FOR_DEPLOYMENTS = (
    "teacher_deployment_id",
    "teacher_deployment_shape",
    "teacher_replica_count",
    "teacher_deployment_timeout_s",
)


def teacher_specs(cfg: Config) -> list[TeacherConfig]:
    """`multi_teacher`'s, or the one of `teacher_model`."""
    if cfg.multi_teacher is not None:
        return list(cfg.multi_teacher.teachers)
    return [TeacherConfig(cfg.teacher_model)] if cfg.teacher_model else []


def teacher_problems(cfg: Config) -> Iterator[str]:
    """What is wrong with the teachers before anybody is asked."""
    specs = teacher_specs(cfg)
    if cfg.multi_teacher is not None and cfg.teacher_model:
        yield "teacher_model: multi_teacher is set too, so it would teach nothing; leave it empty"
    if not specs:
        yield "teacher_model: set it, or multi_teacher with at least one teacher"
    for index, spec in enumerate(specs if cfg.multi_teacher is not None else []):
        where = f"multi_teacher.teachers[{index}]"
        if spec.route_value == "":
            yield f"{where}.route_value: is empty; None routes by the model"
        if not is_base_model(spec.model):
            for name in ("deployment_id", "deployment_shape"):
                if getattr(spec, name) is not None:
                    yield f"{where}.{name}: no deployment is made for {spec.model!r}, which is used as it is"
    yield from _run_level_problems(cfg, specs)


def _run_level_problems(cfg: Config, specs: list[TeacherConfig]) -> Iterator[str]:
    if specs and not any(is_base_model(spec.model) for spec in specs):
        for name in (name for name in FOR_DEPLOYMENTS if getattr(cfg, name) != getattr(Config, name)):
            yield f"{name}: no deployment is made, since the teacher is used as it is (not accounts/NAME/models/NAME)"
    if cfg.teacher_deployment_id is not None:
        if len(specs) > 1:
            yield "teacher_deployment_id: is for one teacher; give each TeacherConfig its deployment_id"
        elif specs and specs[0].deployment_id not in (None, cfg.teacher_deployment_id):
            yield "teacher_deployment_id: the teacher's own deployment_id is another one"


def deployment_id_of(cfg: Config, spec: TeacherConfig) -> str | None:
    """The deployment that the user chose for a teacher."""
    return spec.deployment_id or (cfg.teacher_deployment_id if len(teacher_specs(cfg)) == 1 else None)


def teacher_entry(cfg: Config, spec: TeacherConfig, *, keep: bool) -> dict[str, Any]:
    """One entry of a config's `teachers`; `keep`: its deployment is not scaled to zero in the end."""
    timeouts: dict[str, Any] = {"request": cfg.deployment.sample_timeout}
    scorer: dict[str, Any] = {"name": "fireworks", "timeouts": timeouts}
    if cfg.teacher_inference_url is not None:
        scorer["inference_url"] = cfg.teacher_inference_url
    if is_base_model(spec.model):
        timeouts["deployment"] = cfg.teacher_deployment_timeout_s
        scorer["deployment"] = {
            "deployment_id": deployment_id_of(cfg, spec),
            "deployment_shape": spec.deployment_shape or cfg.teacher_deployment_shape,
            "replica_count": cfg.teacher_replica_count,
            "cleanup": "keep" if keep else "scale_to_zero",
        }
    return {
        "model": spec.model,
        "route_value": spec.route_value,
        "teacher_messages_key": spec.teacher_messages_key,
        "tokenizer_model": spec.tokenizer_model,
        "weight": spec.blend_weight,
        "scorer": scorer,
    }
