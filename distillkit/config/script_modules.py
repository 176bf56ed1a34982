"""Python files with plugins of a user's own: loading one, and which role classes it defines."""

import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from distillkit.errors import InputError, error_text
from distillkit.files.near_paths import did_you_mean
from distillkit.roles.attribution import SCRIPT_MODULE
from distillkit.roles.plugin import Plugin


def complete_classes(module: object) -> Iterator[type[Plugin]]:
    """The role subclasses that a module itself defines, and that can be chosen by name."""
    return (cls for cls in _role_classes(module) if cls.is_complete())


def incomplete_classes(module: object) -> Iterator[type[Plugin]]:
    """Those with a name that lack a method of their role."""
    return (cls for cls in _role_classes(module) if inspect.isabstract(cls) and cls.name)


def _role_classes(module: object) -> Iterator[type[Plugin]]:
    for value in list(vars(module).values()):
        if inspect.isclass(value) and value.__module__ == vars(module)["__name__"] and issubclass(value, Plugin):
            yield value


def what_it_lacks(cls: type[Plugin]) -> str:
    """`does not implement route (it has rout: misspelt?)`, of a class that lacks a method of its role."""
    own = [name for name, value in vars(cls).items() if inspect.isfunction(value) and name not in dir(Plugin)]
    lacking = []
    for name in sorted(cls.__abstractmethods__):
        close = difflib.get_close_matches(name, own, n=1)
        lacking.append(f"{name} (it has {close[0]}: misspelt?)" if close else name)
    return f"does not implement {', '.join(lacking)}"


def import_script(path: Path) -> ModuleType:
    """The file as a module: the same one, with the same classes, as long as the file does not change."""
    if not path.is_file():
        raise InputError(f"plugin script {path} is not there (looked for at {path.resolve()}){did_you_mean(path)}")
    resolved, stat = path.resolve(), path.stat()
    stamp = hashlib.sha256(repr((resolved, stat.st_mtime_ns, stat.st_size)).encode()).hexdigest()[:10]
    name = f"{SCRIPT_MODULE}{resolved.stem}_{stamp}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise InputError(f"plugin script {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]  # what is half loaded must not be found again
        if isinstance(error, KeyboardInterrupt):
            raise
        raise InputError(f"plugin script {path} failed to load: {error_text(error)}") from error
    return module
