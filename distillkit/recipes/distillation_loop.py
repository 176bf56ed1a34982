"""The Fireworks cookbook's distillation recipe: the same names, fields and defaults, all in this one module.

It needs the extra `fireworks`. What each field becomes: docs/moving-from-the-cookbook.md.
"""

from distillkit_builtin.fireworks.recipe.config import (
    ConcurrencyConfig,
    Config,
    DeployConfig,
    DistillMode,
    MultiTeacherConfig,
    RunnerConfig,
    TeacherConfig,
    TrainerConfig,
    WandBConfig,
    WeightSyncScope,
)
from distillkit_builtin.fireworks.recipe.environment import run_from_environment
from distillkit_builtin.fireworks.recipe.main import main

__all__ = [
    "ConcurrencyConfig",
    "Config",
    "DeployConfig",
    "DistillMode",
    "MultiTeacherConfig",
    "RunnerConfig",
    "TeacherConfig",
    "TrainerConfig",
    "WandBConfig",
    "WeightSyncScope",
    "main",
]

if __name__ == "__main__":
    raise SystemExit(run_from_environment())
