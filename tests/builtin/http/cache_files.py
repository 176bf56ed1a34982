"""What the tests of the cache of scores share."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "caches" / "scores.sqlite")


def counted(plugin: Any) -> dict[str, float]:
    """The metrics of the cache since the last look."""
    slug = plugin.teacher.slug
    return {
        name.rpartition("/")[2]: value for name, value in plugin.metrics().items() if name.startswith(f"cache/{slug}/")
    }
