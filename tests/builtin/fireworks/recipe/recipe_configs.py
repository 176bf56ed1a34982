"""Configs of the recipe with their fields changed, and what each is called here."""

from dataclasses import fields
from typing import Any

from distillkit.recipes import distillation_loop as recipe
from distillkit_builtin.fireworks.recipe.config_mapping import SECTIONS

BASE = "accounts/fireworks/models/teacher"


NAMES = sorted(where + field.name for where, cls in SECTIONS.items() for field in fields(cls))


def make(**over: Any) -> recipe.Config:
    values: dict[str, Any] = {
        "log_path": "logs",
        "dataset": "rows.jsonl",
        "teacher_model": BASE,
        "trainer": recipe.TrainerConfig(training_shape_id="accounts/fireworks/trainingShapes/s"),
        "deployment": recipe.DeployConfig(tokenizer_model="mine"),
    }
    return recipe.Config(**values | over)
