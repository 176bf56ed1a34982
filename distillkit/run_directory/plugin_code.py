"""The code that a run's plugins are: of a script the file, of somebody's installed package all of its modules."""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin

OWN = "distillkit"
"""The distribution whose version says what its code is."""


def plugin_code(registry: Registry, plugins: Iterable[Plugin]) -> Iterator[tuple[str, str]]:
    """What messages call each script and each package of others that `plugins` come from, and a digest of its code.

    A package installed in place (`pip install -e`) has other code under the same version. Classes that Python code
    gave to the run have no file that is known to be theirs.
    """
    infos = {info.cls: info for info in registry.infos()}
    for plugin in plugins:
        info = infos.get(type(plugin))
        if info is None or info.from_code or info.distribution == OWN:
            continue
        if info.origin is not None:
            yield info.origin.name, _digest([info.origin])
        else:
            yield info.distribution, _digest(_modules(info.cls))


def _modules(cls: type[Plugin]) -> list[Path]:
    """The Python files of the package that a class stands in, or its own where there is no more."""
    names = (cls.__module__.partition(".")[0], cls.__module__)
    file = next((file for name in names if (file := getattr(sys.modules.get(name), "__file__", None))), None)
    if file is None:  # read from an archive, or made up
        return []
    path = Path(file)
    return sorted(path.parent.rglob("*.py")) if path.name == "__init__.py" else [path]


def _digest(paths: Iterable[Path]) -> str:
    """16 hex digits of what the files hold."""
    whole = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]
