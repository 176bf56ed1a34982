"""Which options of a run are not at their defaults: what its user chose, beside the names of its plugins.

`config.yaml` in a run's directory is complete, so what was set is what differs from the fields' defaults. Nothing of
the run is built for that, and none of its scripts is run: whoever looks at a run need not trust it.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from distillkit.config.option_problems import models_in
from distillkit.config.run_config import RunConfig
from distillkit.errors import PluginNotFoundError
from distillkit.files.redaction import HIDDEN, redact
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin

OF_A_SECRET = re.compile(
    r"(?:^|_)(?:(?:api|secret|access|private|auth)_?key|token|secret|pass(?:word|wd)?|credentials?)$", re.IGNORECASE
)
"""Options of plugins whose value would be a secret. No built-in plugin has one: keys come from the environment."""
DIFFER_ALWAYS = re.compile(r"name|log_path|sinks(\..*)?")
"""Settings that are no difference between two runs."""


def chosen_settings(config: Mapping[str, JsonValue], registry: Registry) -> dict[str, JsonValue]:
    """Key (`train.max_steps`) to value of each option that is not at its default; no secret is among the values."""
    return {key: _without_secrets(key, value) for key, value in _chosen(RunConfig, config, "", registry)}


def all_settings(config: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Every option by its key; no secret is among the values."""
    return {key: _without_secrets(key, value) for key, value in _leaves(config)}


def differing_settings(configs: list[Mapping[str, JsonValue]]) -> dict[str, list[JsonValue]]:
    """Key to the value in each config, of options that are not the same in all; one that is not there is None."""
    tables = [all_settings(config) for config in configs]
    keys = [key for key in dict.fromkeys(key for table in tables for key in table) if not DIFFER_ALWAYS.fullmatch(key)]
    found = {key: [table.get(key) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _chosen(
    model: type[BaseModel] | None, values: Mapping[str, Any], key: str, registry: Registry
) -> Iterator[tuple[str, JsonValue]]:
    fields = {} if model is None else model.model_fields
    for name, value in values.items():
        part, field = f"{key}.{name}" if key else name, fields.get(name)
        if field is not None and _default(field) == value:
            continue
        if isinstance(value, Mapping) and value:
            yield from _chosen(_model_of(field, value, registry), value, part, registry)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                yield from _chosen(_model_of(field, item, registry), item, f"{part}.{place}", registry)
        else:
            yield part, value


def _default(field: FieldInfo) -> object:
    """A field's default as a file has it; a value that no file holds where it has none."""
    if field.is_required() or getattr(field, "default_factory_takes_validated_data", False):
        return field
    return to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)


def _model_of(field: FieldInfo | None, value: Mapping[str, Any], registry: Registry) -> type[BaseModel] | None:
    """The class that a mapping is the options of; None where that is not known, and all of them are shown."""
    models = [] if field is None else list(models_in(field.annotation))
    if len(models) != 1:
        return None
    if not issubclass(models[0], Plugin):
        return models[0]
    try:
        return registry.find(models[0].role, str(value.get("name")))
    except PluginNotFoundError:
        return None


def _leaves(value: JsonValue | Mapping[str, JsonValue], key: str = "") -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{key}.{place}")
    else:
        yield key, value  # type: ignore[misc]


def _without_secrets(key: str, value: JsonValue) -> JsonValue:
    """A value without keys and passwords: those that the environment holds, those in addresses, and by their name."""
    if isinstance(value, str):
        return HIDDEN if OF_A_SECRET.search(key.rpartition(".")[2]) else redact(value)
    if isinstance(value, list):
        return [_without_secrets(key, item) for item in value]
    return value
