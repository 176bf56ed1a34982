"""The recipe's config from the environment, for `python -m distillkit.recipes.distillation_loop`."""

import json
import logging
import os
import sys
from collections.abc import Mapping

from distillkit.errors import DistillkitError, InputError
from distillkit_builtin.fireworks.recipe.config import (
    DEFAULT_DATASET,
    Config,
    DeployConfig,
    MultiTeacherConfig,
    TeacherConfig,
    TrainerConfig,
)
from distillkit_builtin.fireworks.recipe.main import main
from distillkit_builtin.fireworks.recipe.uncaught import error_lines

LOG_PATH = "./distillation_logs"
MODEL = "accounts/fireworks/models/qwen3-8b"
SHAPE = "accounts/fireworks/trainingShapes/qwen3-8b-128k-h200"
TOKENIZER = "Qwen/Qwen3-8B"


def config_from_environment(environment: Mapping[str, str]) -> Config:
    """The recipe's own `__main__`: teachers from the environment, everything else fixed.

    `DISTILLATION_TEACHERS` (models, with commas between) and `DISTILLATION_TEACHER_ROUTE_KEY`; for one teacher of all
    rows `DISTILLATION_TEACHER_MODEL`. Only distillkit has `DISTILLATION_DATASET`, because the recipe's own dataset
    names no teachers, and the fallbacks `OPD_TEACHERS` and `OPD_TEACHER_ROUTE_KEY`, which the recipe has dropped.
    """
    return Config(
        log_path=LOG_PATH,
        base_model=MODEL,
        dataset=environment.get("DISTILLATION_DATASET", "").strip() or DEFAULT_DATASET,
        teacher_model=environment.get("DISTILLATION_TEACHER_MODEL", "").strip(),
        multi_teacher=_teachers(environment),
        trainer=TrainerConfig(training_shape_id=SHAPE),
        deployment=DeployConfig(tokenizer_model=TOKENIZER),
    )


def _teachers(environment: Mapping[str, str]) -> MultiTeacherConfig | None:
    models = [model.strip() for model in _first(environment, "TEACHERS", "").split(",")]
    teachers = [TeacherConfig(model) for model in models if model]
    if not teachers:
        return None
    return MultiTeacherConfig(teachers, _first(environment, "TEACHER_ROUTE_KEY", "teacher"))


def _first(environment: Mapping[str, str], name: str, default: str) -> str:
    """`DISTILLATION_<name>`, else `OPD_<name>`; what is empty counts as unset."""
    values = (environment.get(prefix + name, "").strip() for prefix in ("DISTILLATION_", "OPD_"))
    return next((value for value in values if value), default)


def run_from_environment() -> int:
    """Run, and print the result as JSON; returns the exit code, as `distillkit run` has it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        result = main(config_from_environment(os.environ))
    except DistillkitError as error:
        print(*error_lines(error), sep="\n", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    print(json.dumps(result, default=str))
    return 0
