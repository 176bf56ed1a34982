"""Loopback servers, and weights to push: the fixtures of scorer `http`'s tests."""

from collections.abc import Callable

import pytest
from loopback.openai.wire import Serve

from builtin.http.conftest import _no_certificates, _one_thread, _soon_again, adapters, models, real, serve  # noqa: F401
from distillkit_loopback.openai.flavors import Flavor


@pytest.fixture
def served(serve: Serve) -> Callable[..., object]:  # noqa: F811
    """Start a server that answers as SGLang does."""
    return lambda model=None, **options: serve(model, flavor=Flavor("sglang"), **options)
