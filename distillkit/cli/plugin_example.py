"""How a plugin is chosen in a config: a few lines to copy, made of its options."""

import inspect
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import JsonValue, ValidationError
from pydantic.fields import FieldInfo

from distillkit.cli.plugin_pages import default_of, group_of
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin
from distillkit.roles.type_aliases import unaliased

MOST = 5
"""Options with a default that are shown, of those whose default is a value."""


def example_of(cls: type[Plugin], registry: Registry) -> str | None:
    """YAML that chooses a plugin where its role stands in a config: what it must be given, and some defaults.

    None where nothing can be made up that it takes; `Field(examples=[...])` says what to write for an option.
    """
    fields = cls.model_fields.items()
    required = {name: made_up(field) for name, field in fields if field.is_required()}
    defaults = {name: json.loads(default_of(field)) for name, field in fields if not field.is_required()}
    shown = [(name, value) for name, value in defaults.items() if value not in (None, [], {}, "")][:MOST]
    options: dict[str, JsonValue] = {"name": cls.name, **required, **dict(shown)}
    try:
        cls.model_validate({**required, **dict(shown)}, context={"registry": registry})
    except ValidationError:
        return None
    placed = _placed(cls.role, options)
    return yaml.safe_dump(placed, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip()


def _placed(role: str, options: Mapping[str, JsonValue]) -> dict[str, Any]:
    """Where a plugin of the role stands in a config."""
    places: dict[str, dict[str, Any]] = {
        "dataset": {"data": {"source": options}},
        "prompt_builder": {"prompts": options},
        "sampler": {"student": {"sampler": options}},
        "scorer": {"teachers": [{"model": "org/teacher", "scorer": options}]},
        "weighting": {"train": {"weightings": [options]}},
        "evaluator": {"evaluators": [options]},
        "sink": {"sinks": [options]},
    }
    return places.get(role, {role: options})


def made_up(field: FieldInfo) -> JsonValue:
    """A value for an option that has no default: its first example, else one of its type."""
    if field.examples:
        value: JsonValue = field.examples[0]
        return value
    group = group_of(field)
    if group is not None:
        return {name: made_up(inner) for name, inner in group.model_fields.items() if inner.is_required()}
    return _of_type(field.annotation)


def _of_type(annotation: object, inside: tuple[object, ...] = ()) -> JsonValue:
    if annotation in inside:  # an alias that contains itself
        return "..."
    inside, plain = (*inside, annotation), unaliased(annotation)
    arguments, origin = get_args(plain), get_origin(plain)
    if origin is Annotated:
        return _of_type(arguments[0], inside)
    if origin is Literal:
        return arguments[0]  # type: ignore[no-any-return]  # a literal of JSON
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"name": _of_type(arguments[1], inside)}
    if origin in (list, tuple, set, frozenset):
        return [_of_type(each, inside) for each in arguments if each is not Ellipsis]
    if arguments:  # a union: the first that is not null
        return _of_type(next(each for each in arguments if each is not type(None)), inside)
    simple: dict[object, JsonValue] = {bool: True, int: 1, float: 1.0}
    return simple.get(plain, "...")
