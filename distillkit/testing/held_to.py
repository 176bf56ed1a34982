"""A plugin's method called by the kit: what it raises comes through, what it returns wrongly is a broken contract."""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from distillkit.errors import DistillkitError, PluginError, error_text
from distillkit.roles.attribution import attribute_to, defined_at, named, promise, raised_at, require_returned
from distillkit.roles.plugin import Plugin

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
        raise _broken(plugin, method, f"gave what its role cannot use ({error_text(error)})") from error


def given(plugin: Plugin, method: str, value: T, wanted: type) -> T:
    """`value`, which `method` returned. Raises PluginError unless it is a `wanted`."""
    require_returned(plugin, value, wanted, f"{method}()")
    return value


async def awaited(plugin: Plugin, method: str, call: Awaitable[T]) -> T:
    """What an async method returns in the end. Raises PluginError unless it is async."""
    if not isinstance(call, Awaitable):
        raise _broken(plugin, method, f"returned {type(call).__name__} at once: write `async def {method}`")
    with held_to(plugin, method):
        return await call


def stream(plugin: Plugin, method: str, call: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - whatever it gave
    """What `method` yields, one after another. Raises PluginError unless it can be read so."""
    if isinstance(call, AsyncIterator):
        return call
    raise _broken(
        plugin, method, f"returned {type(call).__name__}: write `async def {method}` that yields each outcome"
    )


def _broken(plugin: Plugin, method: str, what: str) -> PluginError:
    parts = [f"{named(plugin)}: {method}() {what}", promise(type(plugin), method)]
    where = defined_at(plugin, f"{method}()")
    if where:
        parts[0] += f", {where}"
    return PluginError(". ".join(part for part in parts if part))
