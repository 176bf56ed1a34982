"""`distillkit plugins list` and `distillkit plugins show`."""

import inspect
import json
from typing import get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.table import Table

from distillkit.registry import Registry


def as_json(registry: Registry) -> str:
    """For programs."""
    plugins = [
        {
            "role": info.role,
            "name": info.name,
            "class": f"{info.cls.__module__}.{info.cls.__qualname__}",
            "distribution": info.distribution,
            "version": info.version,
            "description": info.cls.describe(),
        }
        for info in registry.infos()
    ]
    broken = [{"entry_point": one.entry_point, "error": one.error} for one in registry.broken]
    return json.dumps({"plugins": plugins, "broken": broken}, indent=2)


def show_list(registry: Registry, console: Console) -> None:
    """For people."""
    table = Table("role", "name", "from", "what it does", box=None)
    for info in registry.infos():
        table.add_row(info.role, info.name, f"{info.distribution} {info.version}".strip(), info.cls.describe())
    console.print(table)
    for one in registry.broken:
        console.print(f"broken: {one.entry_point}: {one.error}")


def show_one(registry: Registry, role: str, name: str, console: Console) -> None:
    """One plugin. Raises PluginNotFoundError with the names that there are."""
    cls = registry.find(role, name)
    console.print(f"{role} {name}: {cls.__module__}.{cls.__qualname__}\n")
    console.print(f"{inspect.getdoc(cls)}\n")
    if not cls.model_fields:
        console.print("It has no options.")
        return
    table = Table("option", "type", "default", "meaning", box=None)
    for key, field in cls.model_fields.items():
        table.add_row(key, type_name(field.annotation), default_of(field), field.description or "")
    console.print(table)


def default_of(field: FieldInfo) -> str:
    """The default as a config writes it."""
    if field.default_factory is not None:
        return json.dumps(field.get_default(call_default_factory=True, validated_data={}), default=str)
    return "required" if field.default is PydanticUndefined else json.dumps(field.default, default=str)


def type_name(annotation: object) -> str:
    """A type as people read it."""
    if annotation is type(None):
        return "null"
    arguments = get_args(annotation)
    if not arguments:
        return getattr(annotation, "__name__", str(annotation))
    if getattr(annotation, "__origin__", None) in (dict, list, tuple):
        origin = getattr(annotation, "__origin__", None)
        inner = ", ".join(type_name(argument) for argument in arguments)
        return f"{getattr(origin, '__name__', '')}[{inner}]"
    if str(annotation).startswith("typing.Literal"):
        return " | ".join(map(json.dumps, arguments))
    return " | ".join(type_name(argument) for argument in arguments)
