"""Config files: read, merged, overridden from the command line, and turned into a `RunConfig`."""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import yaml

from distillkit.config import ConfigProblemsError, RunConfig
from distillkit.errors import ConfigError
from distillkit.registry import Registry
from distillkit.validation import at_line, unknown_key

Tree = dict[str, Any]
PLUGIN_KEYS = ("student", "sampler", "scorer", "router", "prompts", "loss")
SHORT_FOR: Mapping[str, str] = {"data": "path", **dict.fromkeys(PLUGIN_KEYS, "name")}
"""The keys that may hold a text in the place of a mapping, and the option that the text stands for."""


def load_config(
    files: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    scripts: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> tuple[RunConfig, Registry]:
    """The config that `files` describe, later ones over earlier ones, `key=value` overrides over all.

    Args:
        files: YAML, TOML or JSON.
        overrides: such as `train.max_steps=10` or `teachers.0.model=org/name`; values are YAML.
        scripts: Python files with plugins, besides those that the config names under `plugins`.
        defaults: values over the files and under the overrides, from code.
        extra: values over everything else, from code.
        registry: where plugins are looked up; scripts are added to it. Default: everything installed.

    Raises:
        ConfigError: with file, line and key of everything that is wrong.
    """
    tree: Tree = {}
    for file in files:
        tree = merge(tree, read_config_file(file))
    tree = merge(tree, defaults or {})
    for override in overrides:
        apply_override(tree, override)
    tree = merge(tree, extra or {})
    tree["plugins"] = list(dict.fromkeys([*_script_list(tree.get("plugins", ())), *scripts]))
    registry = registry or Registry.discover()
    for script in tree["plugins"]:
        registry.add_script(Path(script))
    try:
        if "registry" in tree:  # an argument of RunConfig's, and no key
            raise ConfigProblemsError([unknown_key(("registry",), RunConfig)])
        return RunConfig(registry=registry, **tree), registry
    except ConfigProblemsError as error:
        raise ConfigError("\n".join(at_line(problem, files, overrides) for problem in error.problems)) from error


def _script_list(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(script, str) for script in value):
        return list(value)
    raise ConfigError(f"plugins: wants a list of Python files, not {value!r}")


def read_config_file(path: Path) -> Tree:
    """One file as a mapping. Raises ConfigError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file; `distillkit init` writes one to start from") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    tree = _parse(path, text)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no sections; a config is a mapping with `data`, `student` and `teachers`")
    return cast(Tree, tree)


def _parse(path: Path, text: str) -> object:
    suffix = path.suffix.lower()
    if suffix not in PARSERS:
        raise ConfigError(f"{path}: config files end in .yaml, .toml or .json, not {suffix!r}")
    try:
        return PARSERS[suffix](text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{path}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error


class _StrictLoader(yaml.SafeLoader):
    """YAML in which keys are text, and one that stands twice is an error, as in TOML."""


def _unique_keys(loader: _StrictLoader, node: yaml.MappingNode) -> Tree:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _key_error(f"a {key.id} is no key; a key is plain text", key)
        if key.tag not in (yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, "tag:yaml.org,2002:merge"):
            raise _key_error(f"the key {key.value!r} is no text for YAML; put it in quotes", key)
        if key.value in seen:
            raise _key_error(f"the key {key.value!r} stands twice", key)
        seen.add(key.value)
    return cast(Tree, loader.construct_mapping(node, deep=True))


def _key_error(problem: str, key: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, key.start_mark)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


def _parse_yaml(text: str) -> object:
    return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader


PARSERS: Mapping[str, Callable[[str], object]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid on `base`: mappings merge, teachers merge by their route, everything else is replaced.

    `data: rows.jsonl` and `student: local` count as the mappings that they are short for. A plugin entry whose `name`
    changes is replaced whole, since its old options belong to another plugin.
    """
    merged = dict(base)
    for key, value in over.items():
        mine, theirs = _in_full(key, merged.get(key)), _in_full(key, value)
        if key == "teachers" and isinstance(mine, list) and isinstance(theirs, list):
            merged[key] = _merge_teachers(mine, theirs)
        elif isinstance(mine, dict) and isinstance(theirs, Mapping) and theirs.get("name") in (None, mine.get("name")):
            merged[key] = merge(mine, theirs)
        else:
            merged[key] = value
    return merged


def _in_full(key: str, value: object) -> object:
    return {SHORT_FOR[key]: value} if isinstance(value, str) and key in SHORT_FOR else value


def _merge_teachers(mine: list[Any], theirs: list[Any]) -> list[Any]:
    if not all(isinstance(teacher, Mapping) for teacher in [*mine, *theirs]):
        return theirs
    merged = list(mine)
    places = {_route_of(teacher): place for place, teacher in enumerate(mine)}
    for teacher in theirs:
        place = places.get(_route_of(teacher))
        if place is None:
            merged.append(teacher)
        else:
            merged[place] = merge(merged[place], teacher)
    return merged


def _route_of(teacher: Mapping[str, Any]) -> object:
    return teacher.get("route_value", teacher.get("model"))


def apply_override(tree: Tree, override: str) -> None:
    """Set one `section.key=value` in place; list items are named by their number."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r}: wants section.key=value, such as train.max_steps=10")
    try:
        value = _parse_yaml(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"override {override!r}: the value is not YAML; quote it") from error
    node: Any = tree
    parts = key.split(".")
    for part, below in pairwise(parts):
        node = _descend(node, part, below, override)
    if isinstance(node, list):
        node[_index(node, parts[-1], override)] = value
    else:
        node[parts[-1]] = value


def _descend(node: Any, part: str, below: str, override: str) -> Any:  # noqa: ANN401 - parsed YAML
    place: Any = _index(node, part, override) if isinstance(node, list) else part
    inner = node[place] if isinstance(node, list) else node.get(place)
    if isinstance(inner, str):  # `student: local` and `sinks: [console]` are short for mappings
        inner = {SHORT_FOR.get(part, "name"): inner}
    if inner is None:
        inner = {}
    if not isinstance(inner, dict | list):
        raise ConfigError(f"override {override!r}: {part!r} has no key {below!r}")
    node[place] = inner
    return inner


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise ConfigError(f"override {override!r}: the list has items 0 to {len(items) - 1}, not {part!r}")
    return int(part)
