"""Loopback servers, and weights to push: the fixtures of scorer `http`'s tests."""

from builtin.http.conftest import _no_certificates, _one_thread, _soon_again, adapters, models, real, serve  # noqa: F401
