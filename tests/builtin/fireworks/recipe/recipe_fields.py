"""Configs of the recipe with several teachers."""

from typing import Any

from builtin.fireworks.recipe.recipe_configs import BASE, make
from distillkit.recipes import distillation_loop as recipe

OTHER = "accounts/fireworks/models/other"
SERVED = "accounts/acme/deployedModels/served"


def several(**first: Any) -> recipe.Config:
    teachers = [recipe.TeacherConfig(**{"model": BASE, "route_value": "a"} | first), recipe.TeacherConfig(OTHER, "b")]
    return make(teacher_model="", multi_teacher=recipe.MultiTeacherConfig(teachers))
