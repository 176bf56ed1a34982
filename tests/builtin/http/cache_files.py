"""What the tests of the cache of scores share."""

from typing import Any


def counted(plugin: Any) -> dict[str, float]:
    """The metrics of the cache since the last look."""
    slug = plugin.teacher.slug
    return {
        name.rpartition("/")[2]: value for name, value in plugin.metrics().items() if name.startswith(f"cache/{slug}/")
    }
