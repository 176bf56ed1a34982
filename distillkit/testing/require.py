"""How a broken contract is reported."""

from distillkit.errors import PluginError
from distillkit.roles.plugin import Plugin


def require(condition: object, plugin: Plugin, message: str) -> None:
    """Raise PluginError naming the plugin's class unless `condition` holds."""
    if not condition:
        raise PluginError(f"{type(plugin).__module__}.{type(plugin).__qualname__} ({plugin.role}): {message}")
