"""What a checkpoint keeps of plugins: their state as JSON, their arrays by name."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

from distillkit.arrays import Array
from distillkit.roles.attribution import attribute_to
from distillkit.roles.plugin import Plugin
from distillkit.roles.returned import returned

PluginStates = Mapping[str, Mapping[str, JsonValue]]
"""What `Plugin.state` gave, by the plugin's key in the config."""


def states_of(plugins: Mapping[str, Plugin]) -> PluginStates:
    """What plugins are to keep now, of those that keep anything; a copy, which does not change with them."""
    found: dict[str, Mapping[str, JsonValue]] = {}
    for key, plugin in plugins.items():
        if type(plugin).state is Plugin.state:
            continue
        given = returned(plugin, "state", Mapping, plugin.state)
        with attribute_to(plugin, "in state()"):
            state = json.loads(json.dumps(dict(given)))
        if state:
            found[key] = state
    return found


def tensors_of(plugins: Mapping[str, Plugin]) -> dict[str, Array]:
    """The arrays that plugins are to keep, by the plugin's key and their name."""
    found: dict[str, Array] = {}
    for key, plugin in plugins.items():
        tensors = returned(plugin, "tensors", Mapping, plugin.tensors)
        found |= {f"{key}/{name}": array for name, array in tensors.items()}
    return found
