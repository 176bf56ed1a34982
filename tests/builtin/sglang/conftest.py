"""A loopback server that answers as SGLang does."""

from collections.abc import Callable

import pytest
from loopback.openai.wire import Serve

from distillkit_loopback.openai.flavors import Flavor


@pytest.fixture
def served(serve: Serve) -> Callable[..., object]:
    """Start a server that answers as SGLang does."""
    return lambda model=None, **options: serve(model, flavor=Flavor("sglang"), **options)
