"""The recipe's `Config` as a `RunConfig`: every field becomes something, or is an error that names it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.config.run_config import ConfigProblemsError, RunConfig
from distillkit.errors import InputError
from distillkit_builtin.fireworks.recipe.callbacks import RecipeCallbacks
from distillkit_builtin.fireworks.recipe.config import Config
from distillkit_builtin.fireworks.recipe.config_mapping import (
    COMPUTED,
    COPIED,
    refusals,
    type_problems,
    value_of,
)
from distillkit_builtin.fireworks.recipe.dataset import local_dataset
from distillkit_builtin.fireworks.recipe.distill_mode import loss_of, mode_problems, router_of
from distillkit_builtin.fireworks.recipe.metrics import RecipeLog, recipe_wandb
from distillkit_builtin.fireworks.recipe.teachers import teacher_entry, teacher_problems, teacher_specs

STEP_TIMEOUT = 3600
WINDOW_A_REPLICA = 8
DURATION = re.compile(r"\d+(\.\d{1,9})?s")
ADAM = {"adam_betas": (0.9, 0.95), "adam_epsilon": 1e-12, "weight_decay": 0.01}
"""The recipe's, where they are not the student's own defaults."""
RUN_FOLDER = "run"
"""Below `log_path`, which may hold the dataset and other things of the user's."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A run, and its plugins that know what `main` returns."""

    config: RunConfig
    log: RecipeLog
    callbacks: RecipeCallbacks


def translate(cfg: Config, *, keep: bool = False) -> Translation:
    """The run that `cfg` describes; an address in `dataset` is fetched.

    Args:
        cfg: what the user wrote.
        keep: leave trainer and deployments running in the end.

    Raises:
        InputError: naming each field that is wrong, or set and not to be honoured.
    """
    problems = type_problems(cfg) or [
        *mode_problems(cfg),
        *refusals(cfg),
        *_problems(cfg),
        *teacher_problems(cfg),
    ]
    if problems:
        raise InputError("\n".join(problems))
    log = RecipeLog.of(cfg)
    callbacks = RecipeCallbacks.of(cfg, log)
    values = _values(cfg, keep=keep)
    values["sinks"] = ["console", log, *recipe_wandb(cfg)]
    values["evaluators"] = [callbacks] if callbacks.has_any else []
    try:
        return Translation(RunConfig(**values), log, callbacks)
    except ConfigProblemsError as error:
        raise InputError("\n".join(_by_recipe_names(error))) from error


def _values(cfg: Config, *, keep: bool) -> dict[str, Any]:
    """The tree of a config file, without the plugins that only Python can pass."""
    specs = teacher_specs(cfg)
    folder = Path(cfg.log_path)
    tree: dict[str, Any] = {
        "name": run_name(cfg),
        "log_path": str(folder / RUN_FOLDER),
        "data": {"path": str(local_dataset(cfg.dataset, folder)), "shuffle": False},
        "student": {"name": "fireworks", "timeouts": {"step": cfg.step_timeout or STEP_TIMEOUT}, **ADAM},
        "teachers": [teacher_entry(cfg, spec, keep=keep) for spec in specs],
        "sampling": {},
        "loss": loss_of(cfg),
        "train": {"normalization": "sum"},
    }
    for name, key in COPIED.items():
        value = value_of(cfg, name)
        if value is not None:
            _set(tree, key, getattr(value, "value", value))
    replicas = cfg.deployment.replica_count or 1
    tree["student"]["concurrency"].setdefault("initial", WINDOW_A_REPLICA * replicas)
    if cfg.trainer.inactivity_timeout is not None:
        _set(tree, "student.trainer.inactivity_timeout", _seconds(cfg.trainer.inactivity_timeout))
    if keep:
        _set(tree, "student.trainer.keep", True)
        _set(tree, "student.deployment.cleanup", "keep")
    if (router := router_of(cfg)) is not None:
        tree["router"] = router
    if cfg.step_eval is not None or cfg.post_training_eval is not None:
        tree["data"] |= {"eval_path": tree["data"]["path"], "max_eval_rows": cfg.max_rows}
        tree["train"]["eval_every"] = eval_every(cfg)
    return tree


def _set(tree: dict[str, Any], key: str, value: object) -> None:
    """Set `student.trainer.job_id` and so on."""
    *sections, option = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[option] = value


def eval_every(cfg: Config) -> int:
    """`step_eval_interval`, which counts synced steps, in steps."""
    return max(0, cfg.step_eval_interval) * cfg.weight_sync_interval


def run_name(cfg: Config) -> str:
    """The last part of `log_path`, as a run may be called."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(cfg.log_path).resolve().name).lstrip("._-") or "distillation"


def _problems(cfg: Config) -> Iterator[str]:
    """The problems of fields that are translated, one message each."""
    if not str(cfg.log_path):
        yield "log_path: is empty; it says where the run writes"
    if not cfg.dataset:
        yield "dataset: is empty; it is the path or address of a JSONL file"
    if not cfg.deployment.tokenizer_model:
        yield "deployment.tokenizer_model: is required, such as Qwen/Qwen3-8B: prompts are tokenized here"
    if not cfg.trainer.training_shape_id:
        yield "trainer.training_shape_id: is required, accounts/NAME/trainingShapes/NAME"
    if cfg.weight_sync_interval < 1:
        yield (
            f"weight_sync_interval: {cfg.weight_sync_interval} cannot be honoured: the student always samples from "
            "weights of its own; it wants 1 or more"
        )
    if cfg.output_model_id is not None and not cfg.save_final_checkpoint:
        yield "output_model_id: cannot be honoured with save_final_checkpoint=False: the final weights are promoted"
    if cfg.step_timeout < 0:
        yield f"step_timeout: is {cfg.step_timeout}; it wants seconds, or 0 for an hour"
    if cfg.trainer.inactivity_timeout is not None and not DURATION.fullmatch(cfg.trainer.inactivity_timeout):
        yield f"trainer.inactivity_timeout: is {cfg.trainer.inactivity_timeout!r}; it wants seconds, such as '7200s'"
    if cfg.step_eval is None and cfg.step_eval_interval > 0:
        yield "step_eval_interval: cannot be honoured without step_eval"
    if cfg.step_eval is None and cfg.eval_before_training:
        yield "eval_before_training: cannot be honoured without step_eval"
    if cfg.wandb.entity is None:
        for name in ("project", "run_name"):
            if getattr(cfg.wandb, name) not in (None, "distillation-tinker"):
                yield f"wandb.{name}: cannot be honoured without wandb.entity, which turns W&B on"


def _seconds(duration: str) -> float | None:
    """`7200s`; 0 is the service's own choice, as there."""
    return float(duration.removesuffix("s")) or None


def _by_recipe_names(error: ConfigProblemsError) -> Iterator[str]:
    names: Mapping[str, str] = {key: name for name, key in {**COMPUTED, **COPIED}.items() if key}
    for problem in error.problems:
        general = re.sub(r"\.\d+(?=\.|$)", "[]", problem.key)
        name = names.get(problem.key) or names.get(general)
        yield f"{name or problem.key}: {problem.message}" if problem.key else problem.message
