"""What a plugin's methods give, held to what their role promises: given wrongly, it is named as such.

Without that, the engine would fail on the value later, and at no line of the plugin's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from distillkit.errors import PluginError
from distillkit.roles.attribution import attribute_to, defined_at, named, promised
from distillkit.roles.plugin import Plugin

T = TypeVar("T")
Types = type | tuple[type, ...]


def require_returned(
    plugin: Plugin, value: object, wanted: Types, method: str, place: str = "", verb: str = "returned"
) -> None:
    """Raise PluginError, with the class, unless what `method` names (`route()`) returned a `wanted` (at this place)."""
    if not isinstance(value, wanted):
        names = [each.__name__ for each in (wanted if isinstance(wanted, tuple) else (wanted,))]
        wish = " or ".join("None" if name == "NoneType" else name for name in names)
        raise broken(plugin, f"{method} at {place}" if place else method, f"{verb} {type(value).__name__}, not {wish}")


def require_yielded(plugin: Plugin, value: object, wanted: Types, method: str) -> None:
    """Raise PluginError, with the class, unless one of what `method` (`score()`) gives one by one is a `wanted`."""
    require_returned(plugin, value, wanted, method, verb="yielded")


def returned(plugin: Plugin, method: str, wanted: Types, call: Callable[[], T]) -> T:
    """What a call of `method` returns; what it raises is the plugin's. Raises PluginError unless it is a `wanted`."""
    with attribute_to(plugin, f"in {method}()"):
        value = call()
    require_returned(plugin, value, wanted, f"{method}()")
    return value


async def awaited(plugin: Plugin, method: str, call: Awaitable[T]) -> T:
    """What an async method returns in the end. Raises PluginError unless it is async."""
    if not isinstance(call, Awaitable):
        raise broken(plugin, f"{method}()", f"returned {type(call).__name__} at once: write `async def {method}`")
    with attribute_to(plugin, f"in {method}()"):
        return await call


def stream(plugin: Plugin, method: str, call: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - whatever it gave
    """What `method` yields, one after another. Raises PluginError unless it can be read so."""
    if isinstance(call, AsyncIterator):
        return call
    if isinstance(call, Coroutine):
        call.close()  # it would warn that nobody awaited it
    what = f"returned {type(call).__name__}: write `async def {method}` that yields each outcome"
    raise broken(plugin, f"{method}()", what)


def broken(plugin: Plugin, doing: str, what: str) -> PluginError:
    """Who did `what` in the method that `doing` names, on which line it is defined, and what its role promises."""
    parts = [f"{named(plugin)}: {doing} {what}", promised(plugin, doing)]
    where = defined_at(plugin, doing)
    if where:
        parts[0] += f", {where}"
    return PluginError(". ".join(part for part in parts if part))
