"""A directory of a model that a test may damage."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def model(tiny_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model", copy_function=shutil.copyfile))
