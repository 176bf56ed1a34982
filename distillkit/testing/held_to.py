"""A plugin's method called by the kit: what it raises comes through, what it returns wrongly is a broken contract."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from distillkit.errors import DistillkitError, error_text
from distillkit.roles import returned
from distillkit.roles.attribution import attribute_to, raised_at
from distillkit.roles.plugin import Plugin
from distillkit.roles.returned import broken, require_returned

T = TypeVar("T")


@contextmanager
def held_to(plugin: Plugin, method: str) -> Iterator[None]:
    """Raise PluginError for an error that comes from no line of the plugin's: the kit cannot work with what it gave.

    What the plugin's own code raises keeps its type, and is attributed to it.
    """
    try:
        with attribute_to(plugin, f"in {method}()"):
            yield
    except DistillkitError:
        raise
    except Exception as error:
        if raised_at(error):
            raise
        raise broken(plugin, f"{method}()", f"gave what its role cannot use ({error_text(error)})") from error


def given(plugin: Plugin, method: str, value: T, wanted: type) -> T:
    """`value`, which `method` returned. Raises PluginError unless it is a `wanted`."""
    require_returned(plugin, value, wanted, f"{method}()")
    return value


async def awaited(plugin: Plugin, method: str, call: Awaitable[T]) -> T:
    """What an async method returns in the end. Raises PluginError unless it is async."""
    with held_to(plugin, method):
        return await returned.awaited(plugin, method, call)
