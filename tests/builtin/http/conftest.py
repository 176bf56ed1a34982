from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback.openai.wire import Serve

import distillkit
from builtin.http.runs import teacher, trained
from distillkit import RunConfig

Make = Callable[..., RunConfig]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Of a cache of scores."""
    return str(tmp_path / "caches" / "scores.sqlite")


@pytest.fixture
def untroubled(serve: Serve, fake_config: Make) -> list[dict[str, Any]]:
    """What a run learns whose teacher behaves."""
    return trained(distillkit.run(fake_config(name="untroubled", teachers=[teacher(serve())])))
