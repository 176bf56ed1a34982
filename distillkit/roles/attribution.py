"""Attributing errors to plugins: an exception keeps its type, and gets a note with the plugin's name and class."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager

from distillkit.errors import DistillkitError, PluginError
from distillkit.files.redaction import redact
from distillkit.roles.plugin import Plugin

RAISED = "raised by "
METHOD = re.compile(r"(\w+)\(\)")
"""In what a plugin was doing: `in batch()`, `route() at line 3`."""


def named(plugin: Plugin) -> str:
    """The plugin's role, name and class, as messages have them."""
    return f"{plugin.role} {plugin.name!r} ({type(plugin).__module__}.{type(plugin).__qualname__})"


def promise(cls: type[Plugin], method: str) -> str:
    """What the role of a class promises of one of its methods: the role's name for it, and its first line there."""
    for role in cls.__mro__:
        if issubclass(role, Plugin) and role.is_role() and method in vars(role):
            line = (inspect.getdoc(vars(role)[method]) or "").partition("\n")[0]
            return f"{role.__name__}.{method}: {line}" if line else ""
    return ""


@contextmanager
def attribute_to(plugin: Plugin, doing: str = "") -> Iterator[None]:
    """Note on what is raised inside, but on no error of distillkit's own, that `plugin` raised it, `doing` what.

    Where `doing` names a method, the note says what the role promises of it.
    """
    try:
        yield
    except DistillkitError:
        raise
    except Exception as error:
        note_origin(error, named(plugin), doing, _promised(plugin, doing))
        raise


def note_origin(error: Exception, who: str, doing: str, promised: str) -> None:
    """Note on an error where it comes from, unless that is noted already: `who` is what `named` gives."""
    if not any(note.startswith(RAISED) for note in getattr(error, "__notes__", ())):
        error.add_note(f"{RAISED}{who} {doing}".rstrip() + (f". {promised}" if promised else ""))


def _promised(plugin: Plugin, doing: str) -> str:
    """What the role promises of the method that `doing` names; empty where it names none."""
    method = METHOD.search(doing)
    return "" if method is None else promise(type(plugin), method[1])


def require_returned(plugin: Plugin, value: object, wanted: type, method: str, place: str = "") -> None:
    """Raise PluginError, with the class, unless what `method` names (`route()`) returned a `wanted` (at this place)."""
    if not isinstance(value, wanted):
        doing = f"{method} at {place}" if place else method
        promised = _promised(plugin, doing)
        raise PluginError(
            f"{named(plugin)}: {doing} returned {type(value).__name__}, not {wanted.__name__}"
            f"{f'. {promised}' if promised else ''}"
        )


def one_line_error(error: BaseException) -> str:
    """An exception on one line, with its notes, as files and sinks may hold it."""
    notes = "; ".join(getattr(error, "__notes__", ()))
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return redact(f"{text} ({notes})" if notes else text)
