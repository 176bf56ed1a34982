"""Fixtures of these tests."""

from builtin.datasets.saved_folders import saved  # noqa: F401
