"""Loopback servers that are stopped after the test: the fixtures of the backends' own tests."""

from builtin.conftest import real, serve  # noqa: F401
