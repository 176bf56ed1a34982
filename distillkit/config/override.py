"""Single keys laid over a config: `train.max_steps=10` from the command line, `{"train.max_steps": 10}` from code."""

import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distillkit.config.option_problems import option_problems
from distillkit.config.parse import OtherBaseError, Tree, parse_yaml
from distillkit.errors import ConfigError
from distillkit.files.strict_json import MAX_DEPTH, ContentError, shortened
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin

PLUGIN_KEYS = ("student", "sampler", "scorer", "router", "prompts", "loss")
SHORT_FOR: Mapping[str, str] = {"data": "path", "sort": "by", **dict.fromkeys(PLUGIN_KEYS, "name")}
"""The keys that may hold a text in the place of a mapping, and the option that the text stands for."""
SHOWN_TEMPLATE = 200
"""Characters of a template that are repeated."""
UNREADABLE = (ValueError, RecursionError, yaml.YAMLError)


def apply_override(tree: Tree, override: str) -> None:
    """Set one `section.key=value` in place; list items are named by their number."""
    key, equals, text = override.partition("=")
    what = _what(override)
    if not equals or not key:
        raise ConfigError(f"{what}: wants section.key=value, such as train.max_steps=10")
    parts = _parts(key, what)
    try:
        value = parse_yaml(text)
    except ContentError as error:
        raise ConfigError(f"{what}: the value {error}") from error
    except OtherBaseError as error:
        raise ConfigError(f"{what}: {error.problem}") from error
    except UNREADABLE as error:
        raise ConfigError(f"{what}: the value is not YAML; {_quoted(key, text)}") from error
    _require_single_keys(parts, value, what)
    _set(tree, parts, value, what, None)


def _quoted(key: str, text: str) -> str:
    """What to write for a value that is a text: a template or an expression is no secret, so that is repeated."""
    if not key.startswith(("data.format.", "data.filter", "data.sort")) or len(text) > SHOWN_TEMPLATE:
        return "quote it"
    return f"write {shlex.quote(f'{key}={json.dumps(text)}')}"


def apply_value(tree: Tree, key: str, value: object, registry: Registry) -> None:
    """Set one key in place, from code: what it is in may be a section or a plugin that was made in Python."""
    what = _what(f"{key}=")
    parts = _parts(key, what)
    _require_single_keys(parts, value, what)
    _set(tree, parts, value, what, registry)


def _require_single_keys(parts: Sequence[str], value: object, what: str) -> None:
    """Refuse options for a whole section, whose other options would be gone; one that names its plugin is another."""
    if len(parts) == 1 and isinstance(value, Mapping) and "name" not in value:
        keys = " and ".join(shortened(f"{parts[0]}.{key}", 60) for key in list(value)[:2]) or f"{parts[0]}.KEY"
        raise ConfigError(f"{what}: would replace the whole section; set single keys: write {keys}")


def _parts(key: str, what: str) -> list[str]:
    parts = key.split(".")
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"{what}: the key has more than {MAX_DEPTH} parts")
    return parts


def _set(
    tree: Tree, parts: Sequence[str], value: object, what: str, registry: Registry | None, above: tuple[str, ...] = ()
) -> None:
    """Set the key `parts` of `tree`, which itself stands at `above`."""
    node: Any = tree
    for at, (part, below) in enumerate(pairwise(parts)):
        key: Any = _index(node, part, what) if isinstance(node, list) else part
        inner = node[key] if isinstance(node, list) else node.get(key)
        if isinstance(inner, BaseModel):
            here = (*above, *parts[: at + 1])
            node[key] = _replaced(inner, parts[at + 1 :], value, what, registry, here)
            return
        node[key] = node = _opened(inner, part, below, what)
    if isinstance(node, list):
        node[_index(node, parts[-1], what, "" if parts[-1].isdigit() else ".".join([*above, *parts[:-1]]))] = value
    else:
        node[parts[-1]] = value


def _what(override: str) -> str:
    """An override without its value, which may be a secret: the command line is not repeated."""
    key, equals, _ = override.partition("=")
    return f"override {shortened(repr(f'{key}=...' if equals else key), 200)}"


def _opened(inner: object, part: str, below: str, what: str) -> Tree | list[Any]:
    """A copy of what stands at `part`, for `below` to be set in it."""
    if isinstance(inner, str):  # `student: local` and `sinks: [console]` are short for mappings
        return {SHORT_FOR.get(part, "name"): inner}
    if inner is None:
        return {}
    if isinstance(inner, Mapping):
        return dict(inner)
    if isinstance(inner, list | tuple):
        return list(inner)
    raise ConfigError(f"{what}: {part!r} has no key {below!r}")


def _replaced(
    model: BaseModel, parts: Sequence[str], value: object, what: str, registry: Registry | None, here: tuple[str, ...]
) -> BaseModel:
    """A section or plugin made in Python, which stands at `here`, with one option otherwise; models are frozen."""
    options = {name: _unbound(option, registry) for name, option in _options(model).items()}
    if len(parts) > 1 and isinstance(getattr(model, parts[0], None), BaseModel):
        options[parts[0]] = getattr(model, parts[0])  # also where it is at its default
    _set(options, parts, value, what, registry, here)
    try:
        return type(model).model_validate(options, context={"registry": registry})
    except ValidationError as error:
        problems = [problem.below(here) for problem in option_problems(error, type(model))]
        raise ConfigError("\n".join(f"{what}: {problem}" for problem in problems)) from error


def _options(model: BaseModel) -> Tree:
    return {name: getattr(model, name) for name in model.model_fields_set}


def _unbound(option: object, registry: Registry | None) -> object:
    """A plugin of the same options that is bound to nothing yet: a scorer keeps the teacher that it was given to."""
    if not isinstance(option, Plugin):
        return option
    return type(option).model_validate(_options(option), context={"registry": registry})


def _index(items: list[Any], part: str, what: str, of: str = "") -> int:
    """The item that `part` says; `of` is the key of the list, where `part` is the end of a key."""
    known = [str(index) for index in range(len(items))]
    if part not in known:
        there = f"items 0 to {len(items) - 1}" if items else "no items"
        wanted = f"; the number of the item comes first: {of}.0.{shortened(part, 60)}" if of and items else ""
        raise ConfigError(f"{what}: the list has {there}, not {shortened(repr(part), 60)}{wanted}")
    return known.index(part)
