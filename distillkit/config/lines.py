"""Where in a config file a key stands: the line that an error names."""

import re
import tomllib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from distillkit.config.option_problems import Problem
from distillkit.config.parse import read_text
from distillkit.errors import ConfigError
from distillkit.files.strict_json import Location, shortened


def at_line(problem: Problem, files: Sequence[Path], overrides: Sequence[str] = ()) -> str:
    """The problem with the override that brought it, or else the file and line of its key."""
    for override in reversed(overrides):
        key = override.partition("=")[0]
        if f"{problem.key}.".startswith(f"{key}.") or key == f"{problem.key}.name":  # which plugin it is
            return _of_override(override, problem)
    for file in reversed(files):
        line = _line_of(file, problem.location)
        if line is not None:
            return f"{file}:{line}: {problem}"
    for override in reversed(overrides):
        if override.startswith(f"{problem.key}."):  # it opened a section that no file has: `teacher.model=x`
            return _of_override(override, problem)
    return f"{files[-1]}: {problem}" if files else str(problem)


def _of_override(override: str, problem: Problem) -> str:
    shown = f"{override.partition('=')[0]}=..."  # the value may be a secret
    return f"override {shortened(repr(shown), 200)}: {problem}"


def _line_of(file: Path, location: Location) -> int | None:
    try:
        text, suffix = read_text(file), file.suffix.lower()
        if suffix == ".toml":
            return _toml_line(text, location)
        text = text.replace("\t", " ") if suffix == ".json" else text  # JSON is YAML but for tabs
        return _yaml_line(_composed(text), location)
    except (ConfigError, yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return None  # the problem itself is what matters


@lru_cache(maxsize=4)
def _composed(text: str) -> yaml.Node | None:
    """A file's nodes, which know their lines; kept, since one file may have many problems."""
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    return node


def _yaml_line(node: yaml.Node | None, location: Location) -> int | None:
    line: int | None = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                return None
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _toml_line(text: str, location: Location) -> int | None:
    """The line of a key that is there, if no other line could be it: the parser keeps no positions."""
    node: Any = tomllib.loads(text)
    name: str | None = None
    for part in location:
        if isinstance(node, dict):
            if part not in node:
                return None
            name, node = str(part), node[part]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
    key = re.compile(rf"""^[^#]*(?<![\w-]){re.escape(name or "")}["']?\s*[=.\]]""")
    lines = [number for number, line in enumerate(text.splitlines(), start=1) if key.search(line)]
    return lines[0] if name is not None and len(lines) == 1 else None
