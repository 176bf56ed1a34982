"""The loopback service with two tiny models, and the real SDK pointed at it: the fixtures of the backend's tests."""

from builtin.fireworks.conftest import _sdk, connect, sampler_of, service, twin  # noqa: F401
