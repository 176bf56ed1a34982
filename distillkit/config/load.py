"""Configs: files merged, overridden from the command line, and turned into a `RunConfig`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from distillkit.config.lines import at_line
from distillkit.config.option_problems import Problem, unknown_key
from distillkit.config.override import SHORT_FOR, UNREADABLE, apply_override, apply_value
from distillkit.config.parse import PARSERS, Tree, parse_yaml, read_text
from distillkit.config.run_config import ConfigProblemsError, RunConfig
from distillkit.errors import ConfigError
from distillkit.files.strict_json import ContentError, shortened
from distillkit.registry import Registry


def load_config(
    files: Sequence[Path],
    overrides: Sequence[str] = (),
    *,
    scripts: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    values: Mapping[str, object] | None = None,
    registry: Registry | None = None,
) -> tuple[RunConfig, Registry]:
    """The config that `files` describe, later ones over earlier ones, `key=value` overrides over all.

    Args:
        files: YAML, TOML or JSON.
        overrides: such as `train.max_steps=10` or `teachers.0.model=org/name`; values are YAML.
        scripts: Python files with plugins, besides those that the config names under `plugins`.
        defaults: values over the files and under the overrides, from code.
        extra: sections over all that, from code.
        values: single keys over everything else, from code: `{"train.max_steps": 10}`.
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
    registry = registry or Registry.discover()
    for key, value in (values or {}).items():
        apply_value(tree, key, value, registry)
    tree["plugins"] = list(dict.fromkeys([*_script_list(tree.get("plugins", ())), *scripts]))
    try:
        return _config_of(tree, registry), registry
    except ConfigProblemsError as error:
        said = [*overrides, *(f"{key}=" for key in values or {})]
        raise ConfigError("\n".join(at_line(problem, files, said) for problem in error.problems)) from error


def _config_of(tree: Tree, registry: Registry) -> RunConfig:
    """The config; the scripts that it names are added to `registry`."""
    for script in tree["plugins"]:
        registry.add_script(Path(script))
    if "registry" in tree:  # an argument of RunConfig's, and no key
        raise ConfigProblemsError([unknown_key(("registry",), RunConfig)])
    return RunConfig(registry=registry, **tree)


def _script_list(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(script, str) for script in value):
        return list(value)
    raise ConfigError(f"plugins: wants a list of Python files, not {value!r}")


def read_config_file(path: Path) -> Tree:
    """One file as a mapping. Raises ConfigError naming file and line."""
    text, suffix = read_text(path), path.suffix.lower()
    if suffix not in PARSERS:
        raise ConfigError(f"{path}: config files end in .yaml, .toml or .json, not {suffix!r}")
    try:
        tree = PARSERS[suffix](text)
    except UNREADABLE as error:
        raise ConfigError(_said_of(path, text, error)) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no sections; a config is a mapping with `data`, `student` and `teachers`")
    return cast(Tree, tree)


def _said_of(path: Path, text: str, error: Exception) -> str:
    """What a parser said of a file, with the line wherever that can be found."""
    match error:
        case yaml.MarkedYAMLError():
            mark = error.problem_mark or error.context_mark
            said = shortened(str(error.problem or error.context), 200)
            quoted = "; a text that holds `: ` stands in quotes" if said.startswith("mapping values are not") else ""
            return f"{path}:{mark.line + 1 if mark else 1}: {said}{quoted}"
        case yaml.reader.ReaderError():
            line = text.count("\n", 0, error.position) + 1
            return f"{path}:{line}: the character #x{error.character:04x} may not stand in YAML"
        case ContentError(location=()):
            return f"{path}{_line_of_a_key_twice(path, text)}: {error}"
        case ContentError():
            return at_line(Problem(error.location, str(error)), [path])
        case RecursionError():
            return f"{path}: is nested too deeply"
    return f"{path}: {shortened(str(error), 200)}"


def _line_of_a_key_twice(path: Path, text: str) -> str:
    """`:7`, where a JSON file read as YAML has a line for it: Python's JSON parser keeps no positions."""
    if path.suffix.lower() != ".json":
        return ""
    try:
        parse_yaml(text.replace("\t", " "))
    except yaml.constructor.ConstructorError as error:
        return f":{error.problem_mark.line + 1}" if error.problem_mark else ""
    except UNREADABLE:
        pass
    return ""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """`over` laid on `base`: mappings merge, teachers merge by their route, everything else is replaced.

    `data: rows.jsonl` and `student: local` count as the mappings that they abbreviate. A plugin entry whose `name`
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
    indices = {_route_of(teacher): index for index, teacher in enumerate(mine)}
    for teacher in theirs:
        index = indices.get(_route_of(teacher))
        if index is None:
            merged.append(teacher)
        else:
            merged[index] = merge(merged[index], teacher)
    return merged


def _route_of(teacher: Mapping[str, Any]) -> str:
    """What two files may mean the same teacher by, in writing: a wrong one may be a list, which no dict takes."""
    return repr(teacher.get("route_value", teacher.get("model")))
