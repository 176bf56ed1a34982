"""Loopback servers that are stopped after the test: the fixtures of the backend's own tests."""

from builtin.http.conftest import _no_certificates, _one_thread, _soon_again, real, serve  # noqa: F401
