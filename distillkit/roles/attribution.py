"""Attributing errors to plugins: an exception keeps its type, and gets a note with name, class and line."""

import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillkit.errors import AlignmentError, DistillkitError, error_text
from distillkit.files.redaction import redact
from distillkit.roles.plugin import Plugin

RAISED = "raised by "
SCRIPT_MODULE = "distillkit_script_"
"""How the names of modules begin that plugin scripts are imported as."""
METHOD = re.compile(r"(\w+)\(\)")
"""In what a plugin was doing: `in batch()`, `route() at line 3`."""
LIBRARY = sysconfig.get_path("stdlib")
INSTALLED = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
"""Where installed packages are, which may lie below the standard library."""


def named(plugin: Plugin) -> str:
    """The plugin's role, name and class, as messages have them."""
    return f"{plugin.role} {plugin.name!r} ({class_named(type(plugin))})"


def class_named(cls: type) -> str:
    """`package.module.Class`; `Class of mine.py` of a script, whose module has a name that nobody wrote."""
    if not cls.__module__.startswith(SCRIPT_MODULE):
        return f"{cls.__module__}.{cls.__qualname__}"
    file = getattr(sys.modules.get(cls.__module__), "__file__", None) or cls.__module__
    return f"{cls.__qualname__} of {Path(file).name}"


def promise(cls: type[Plugin], method: str) -> str:
    """What the role of a class promises of one of its methods: the role's name for it, and its first line there."""
    for role in cls.__mro__:
        if issubclass(role, Plugin) and role.is_role() and method in vars(role):
            line = (inspect.getdoc(vars(role)[method]) or "").partition("\n")[0]
            return f"{role.__name__}.{method}: {line}" if line else ""
    return ""


def raised_at(error: BaseException) -> str:
    """`file:line` of the author's own code that an error came from or through last; empty where it is in none.

    Own is what belongs neither to the engine nor to Python nor to an installed package; where a plugin is installed,
    the package that the engine called.
    """
    frames = [
        (str(frame.f_globals.get("__name__", "")).partition(".")[0], frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    outside = [each for each in frames if each[0] != "distillkit" and not _in_python(each[1])]
    own = [each for each in outside if each[0] == outside[0][0] or not each[1].startswith(INSTALLED)]
    return f"{_shown(own[-1][1])}:{own[-1][2]}" if own else ""


def _in_python(file: str) -> bool:
    """Whether a file is of the standard library, or none at all, as what is compiled or made by `exec`."""
    return file.startswith("<") or (file.startswith(LIBRARY) and not file.startswith(INSTALLED))


def _shown(file: str) -> str:
    """A path below the working directory as it is there, every other one whole."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def defined_at(plugin: Plugin, doing: str) -> str:
    """`file:line` of the method that `doing` names, where the plugin's own class has it; else empty."""
    found = METHOD.search(doing)
    function = None if found is None else inspect.unwrap(getattr(type(plugin), found[1], _nothing))
    code = getattr(function, "__code__", None)
    if code is None or function is _nothing or function.__module__.partition(".")[0] == "distillkit":
        return ""
    return f"{_shown(code.co_filename)}:{code.co_firstlineno}"


def _nothing() -> None:
    """Stands for a method that a class does not have."""


@contextmanager
def attribute_to(plugin: Plugin, doing: str = "") -> Iterator[None]:
    """Note on what is raised inside that `plugin` raised it, `doing` what, on which line.

    Not on errors of distillkit's own, which say it themselves, but for values that do not fit together: their
    constructors know no plugin. Where `doing` names a method, the note says what the role promises of it.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, DistillkitError) or isinstance(error, AlignmentError):
            note_origin(error, named(plugin), doing, promised(plugin, doing), defined_at(plugin, doing))
        raise


def note_origin(error: Exception, who: str, doing: str, role_says: str, defined: str = "") -> None:
    """Note on an error where it comes from, unless that is noted already: `who` is what `named` gives.

    `defined` is the line to say where the error came through no line of the plugin's, such as that of its method.
    """
    if not any(note.startswith(RAISED) for note in getattr(error, "__notes__", ())):
        where = raised_at(error) or defined
        place = f", {where}" if where else ""
        error.add_note(f"{RAISED}{who} {doing}".rstrip() + place + (f". {role_says}" if role_says else ""))


def promised(plugin: Plugin, doing: str) -> str:
    """What the role promises of the method that `doing` names; empty where it names none."""
    method = METHOD.search(doing)
    return "" if method is None else promise(type(plugin), method[1])


def one_line_error(error: BaseException) -> str:
    """An exception on one line, with its notes, as files and sinks may hold it."""
    notes = "; ".join(getattr(error, "__notes__", ()))
    text = error_text(error)
    return redact(f"{text} ({notes})" if notes else text)
