"""`distillkit plugins list` and `distillkit plugins show`."""

import inspect
import json
from collections.abc import Iterator
from typing import Annotated, Literal, get_args, get_origin

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.console import Console
from rich.table import Table

from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin
from distillkit.roles.type_aliases import alternatives, unaliased


def as_json(registry: Registry) -> str:
    """All plugins, and what cannot be loaded or chosen, as JSON text for programs."""
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
    broken = [{"entry_point": broken.entry_point, "error": broken.error} for broken in registry.broken]
    incomplete = [
        {"role": each.role, "name": each.name, "class": each.cls, "error": each.lacks} for each in registry.incomplete
    ]
    return json.dumps({"plugins": plugins, "broken": broken, "incomplete": incomplete}, indent=2)


def show_list(registry: Registry, console: Console) -> None:
    """Print all plugins as a table, then entry points that failed to load, and classes that lack a method."""
    table = Table("role", "name", "from", "what it does", box=None)
    for info in registry.infos():
        table.add_row(info.role, info.name, f"{info.distribution} {info.version}".strip(), info.cls.describe())
    console.print(table)
    for broken in registry.broken:
        console.print(f"broken: {broken.entry_point}: {broken.error}")
    for each in registry.incomplete:
        console.print(f"cannot be chosen: {each.role} {each.name}: {each.cls} {each.lacks}")


def show_one(registry: Registry, role: str, name: str, console: Console) -> None:
    """One plugin. Raises PluginNotFoundError with the names that there are."""
    cls = registry.find(role, name)
    console.print(f"{role} {name}: {cls.__module__}.{cls.__qualname__}\n")
    console.print(f"{inspect.getdoc(cls)}\n")
    if not cls.model_fields:
        console.print("It has no options.")
        return
    table = Table("option", "type", "default", "meaning", box=None)
    for key, field in options_of(cls):
        table.add_row(key, type_name(field.annotation), default_of(field), field.description or "")
    console.print(table)


def options_of(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    """The fields of a plugin as a config writes their keys: those of a group of options by `group.option`.

    A group that may be null is an option itself too, before its own.
    """
    for name, field in model.model_fields.items():
        group = group_of(field)
        if group is None or type(None) in alternatives(field.annotation):
            yield name, field
        if group is not None:
            yield from ((f"{name}.{inner}", each) for inner, each in options_of(group))


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """The sub-model whose fields are options too, also of a field that may be null.

    None for a field that is an option itself, such as a plugin.
    """
    kinds = [kind for kind in alternatives(field.annotation) if kind is not type(None)]
    cls = kinds[0] if len(kinds) == 1 else None
    return cls if inspect.isclass(cls) and issubclass(cls, BaseModel) and not issubclass(cls, Plugin) else None


def default_of(field: FieldInfo) -> str:
    """The default as a config writes it."""
    default = field.get_default(call_default_factory=True, validated_data={})
    return "required" if default is PydanticUndefined else json.dumps(default, default=_as_written)


def _as_written(value: object) -> object:
    """What JSON does not know, as it stands in a config: a section or plugin by what differs from its defaults."""
    if not isinstance(value, BaseModel):
        return str(value)
    options = value.model_dump(mode="json", exclude_defaults=True)
    return {"name": value.name, **options} if isinstance(value, Plugin) else options


def type_name(annotation: object, inside: tuple[object, ...] = ()) -> str:
    """A type annotation in words, such as `list of str`, which stands `inside` of others."""
    if annotation in (type(None), JsonValue):
        return "JSON" if annotation is JsonValue else "null"
    if annotation in inside:  # an alias that contains itself
        return str(annotation)
    inside, plain = (*inside, annotation), unaliased(annotation)
    arguments, origin = get_args(plain), get_origin(plain)
    if not arguments:
        return getattr(plain, "__name__", str(plain))
    if origin is Annotated:  # the rest limits its values
        return type_name(arguments[0], inside)
    if origin is Literal:
        return " | ".join(map(json.dumps, arguments))
    names = [type_name(argument, inside) for argument in arguments if argument is not Ellipsis]
    if origin is dict:
        return f"mapping of {' to '.join(names)}"
    if origin is list or Ellipsis in arguments:
        return f"list of {names[0]}"
    if origin is tuple:
        return f"[{', '.join(names)}]"
    return " | ".join(names)
