"""Fixtures of these tests."""

from builtin.fireworks.recipe.recipe_runs import fireworks  # noqa: F401
