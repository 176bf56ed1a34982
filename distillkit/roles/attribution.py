"""Attributing errors to plugins: an exception keeps its type, and gets a note with the plugin's name and class."""

from collections.abc import Iterator
from contextlib import contextmanager

from distillkit.errors import DistillkitError, PluginError
from distillkit.files.redaction import redact
from distillkit.roles.plugin import Plugin


@contextmanager
def attribute_to(plugin: Plugin, doing: str = "") -> Iterator[None]:
    """Note on what is raised inside, but on no error of distillkit's own, that `plugin` raised it, `doing` what."""
    try:
        yield
    except DistillkitError:
        raise
    except Exception as error:
        cls = type(plugin)
        where = f"raised by {plugin.role} {plugin.name!r} ({cls.__module__}.{cls.__qualname__}) {doing}".rstrip()
        if where not in getattr(error, "__notes__", ()):
            error.add_note(where)
        raise


def require_returned(plugin: Plugin, value: object, wanted: type, doing: str) -> None:
    """Raise PluginError, with the class, unless what `doing` names (`route() at line 3`) returned a `wanted`."""
    if not isinstance(value, wanted):
        cls = type(plugin)
        raise PluginError(
            f"{plugin.role} {plugin.name!r} ({cls.__module__}.{cls.__qualname__}): {doing} returned "
            f"{type(value).__name__}, not {wanted.__name__}"
        )


def one_line_error(error: BaseException) -> str:
    """An exception on one line, with its notes, as files and sinks may hold it."""
    notes = "; ".join(getattr(error, "__notes__", ()))
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    return redact(f"{text} ({notes})" if notes else text)
