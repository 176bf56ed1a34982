"""What the tests on real servers share; the fixtures of a server's own folder end with its last test."""

from pathlib import Path

import pytest

from distillkit_builtin.local.model_files.demo_model import ensure_demo_model


@pytest.fixture(scope="session")
def model() -> Path:
    """The demo's model, SmolLM2-135M, which is fetched once."""
    return ensure_demo_model(lambda message: None)
