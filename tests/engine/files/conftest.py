"""A run in a process of its own, of which a test limits what it may write or open."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import question

FAKES = str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py")


@pytest.fixture
def command(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A run of twenty steps of the fakes, whose samples are its longest file."""
    monkeypatch.chdir(tmp_path)
    config = {
        "name": "full",
        "plugins": [FAKES],
        "data": {"path": jsonl([question(f"row {i}") for i in range(20)])},
        "student": {"name": "fake", "learning_rate": 1.0},
        "teachers": [{"model": "t", "scorer": {"name": "fake", "likes": "abc"}}],
        "sampling": {"max_completion_tokens": 32},
        "train": {"prompt_groups_per_step": 1, "save_every": 2},
        "sinks": [],
    }
    Path("config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return [sys.executable, "-m", "distillkit", "run", "config.yaml"]
