"""The recipe's two losses: which fields each reads, and the loss and router that it becomes."""

from collections.abc import Iterator, Mapping
from typing import Any

from distillkit_builtin.fireworks.candidates import MOST_CANDIDATES
from distillkit_builtin.fireworks.recipe.config import Config, DistillMode, MultiTeacherConfig
from distillkit_builtin.fireworks.recipe.teachers import teacher_specs

OF_SAMPLED: Mapping[str, str] = {"opd_loss_scale": "loss.scale", "ratio_log_cap": "loss.ratio_log_cap"}
"""Recipe field to config key, of `sampled_reverse_kl` alone."""
ONE = "each row is scored by exactly one teacher, so nothing is blended; it belongs to distill_mode topk_forward_kl"
ALL = "with topk_forward_kl every teacher scores every row; leave it out"


def is_topk(cfg: Config) -> bool:
    """Whether the teachers' top-K are learned, and not the gap at the sampled tokens."""
    return cfg.distill_mode == DistillMode.TOPK_FORWARD_KL


def mode_problems(cfg: Config) -> Iterator[str]:
    """Fields that the chosen loss does not read, and are set; values that it does not take."""
    if cfg.distill_mode not in [*DistillMode]:
        known = " and ".join(DistillMode)
        yield f"distill_mode: {cfg.distill_mode!r} cannot be honoured: only {known} are there"
    elif is_topk(cfg):
        yield from _topk_problems(cfg)
    else:
        yield from _sampled_problems(cfg)


def _sampled_problems(cfg: Config) -> Iterator[str]:
    if cfg.sdft_top_k != Config.sdft_top_k:
        yield f"sdft_top_k: {cfg.sdft_top_k!r} cannot be honoured: it belongs to distill_mode topk_forward_kl"
    for index, spec in enumerate(teacher_specs(cfg)):
        if spec.blend_weight != 1.0:
            yield f"multi_teacher.teachers[{index}].blend_weight: {spec.blend_weight!r} cannot be honoured: {ONE}"


def _topk_problems(cfg: Config) -> Iterator[str]:
    if not 1 <= cfg.sdft_top_k <= MOST_CANDIDATES:
        yield f"sdft_top_k: is {cfg.sdft_top_k}; it wants 1 to {MOST_CANDIDATES}: the service gives no more"
    for name in OF_SAMPLED:
        value = getattr(cfg, name)
        if value != getattr(Config, name):
            yield f"{name}: {value!r} cannot be honoured: topk_forward_kl has no such number; leave it out"
    if cfg.multi_teacher is not None and cfg.multi_teacher.route_key != MultiTeacherConfig.route_key:
        yield f"multi_teacher.route_key: {cfg.multi_teacher.route_key!r} cannot be honoured: {ALL}"


def loss_of(cfg: Config) -> dict[str, Any]:
    """The config's `loss`."""
    if is_topk(cfg):
        return {"name": "topk_cross_entropy", "k": cfg.sdft_top_k}
    values = {key.removeprefix("loss."): getattr(cfg, name) for name, key in OF_SAMPLED.items()}
    return {"name": "importance_sampling", **values}


def router_of(cfg: Config) -> dict[str, Any] | None:
    """The config's `router`; None: its default, one teacher for all rows."""
    several = len(teacher_specs(cfg)) > 1
    if is_topk(cfg):
        return {"name": "all"} if several else None
    key = cfg.multi_teacher.route_key if cfg.multi_teacher is not None else MultiTeacherConfig.route_key
    return {"name": "field", "route_key": key} if several or key != MultiTeacherConfig.route_key else None
