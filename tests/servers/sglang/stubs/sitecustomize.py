"""Stands in for packages that SGLang imports and that exist for CUDA alone, so that it starts on any CPU.

Python imports this module at its start, in every process that has this folder on its path. None of what is stubbed is
called: without AMX all of SGLang's layers take their plain PyTorch path, and a text model reads no videos.
"""

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence

STUBBED = ("sgl_kernel", "flashinfer", "decord", "decord2", "av")
"""Kernels for CUDA, and readers of videos and sound."""


class Anything:
    """Whatever is done with it when a module is imported: called, used as a decorator, as a base class, as a type."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> object:
        return args[0] if len(args) == 1 and callable(args[0]) else Anything()

    def __getattr__(self, name: str) -> object:
        return anything(name)

    def __mro_entries__(self, bases: tuple[type, ...]) -> tuple[type, ...]:
        return (object,)

    def __iter__(self) -> Iterator[object]:
        return iter(())

    def __or__(self, other: object) -> "Anything":
        return self

    __ror__ = __or__


class AnyClass(type):
    """A class with whatever attributes are asked for, such as the members of an enumeration."""

    def __getattr__(cls, name: str) -> object:
        anything(name)
        return name


class AnyModule(types.ModuleType):
    """A package with whatever is imported from it: a class where the name begins as a class's does."""

    __path__: list[str] = []  # noqa: RUF012 - a package's own attribute

    def __getattr__(self, name: str) -> object:
        return AnyClass(name, (), {}) if name[:1].isupper() else anything(name)


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the stubbed packages, and all modules below them, before any other finder does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in STUBBED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return AnyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__version__ = "9.9.9"  # type: ignore[attr-defined] - newer than any that is asked for


def anything(name: str) -> object:
    """A value of that name; there is none of Python's own, by which it would take it for something else."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything()


sys.meta_path.insert(0, StubFinder())
