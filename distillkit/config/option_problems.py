"""What pydantic found wrong with a config, as lines that name file, line, key and how to mend it."""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distillkit.config.files import read_text
from distillkit.errors import ConfigError, suggest
from distillkit.files.strict_json import Location, shortened

SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config."""

    location: Location
    message: str

    @property
    def key(self) -> str:
        """The config key as a user writes it: `teachers.0.scorer.batch_size`."""
        return ".".join(map(str, self.location))

    def __str__(self) -> str:
        """Key and message; what is wrong with the whole has no key."""
        return f"{shortened(self.key, 200)}: {self.message}" if self.location else self.message


class PluginOptionsError(ValueError):
    """The options of one plugin are wrong; locations are relative to the plugin."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep the problems for whoever knows where the plugin stands."""
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


def option_problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """The problems in `error`, those inside nested plugins too; the first 20 in full."""
    errors = error.errors()
    found = [details for details in errors if not _follows_from_another(details, errors)]
    shown = [problem for details in found[:SHOWN_PROBLEMS] for problem in _problems(details, model)]
    more = len(found) - SHOWN_PROBLEMS
    return [*shown, Problem((), f"... and {more} more problems")] if more > 0 else shown


def _follows_from_another(details: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """A list that is too short only because its items are wrong needs no line of its own."""
    place = details["loc"]
    return details["type"] == "too_short" and any(
        other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in errors
    )


def _problems(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
    location = tuple(details["loc"])
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, PluginOptionsError):
        yield from (Problem(location + problem.location, problem.message) for problem in cause.problems)
    elif details["type"] == "extra_forbidden":
        yield unknown_key(location, model)
    elif cause is not None:
        yield Problem(location, str(cause))
    elif details["type"] == "missing":
        yield Problem(location, "is required")
    else:
        shown = shortened(_written(details["input"]), 60)
        said = details["msg"].replace("valid tuple", "list")  # which configs write it as
        yield Problem(location, f"{said[0].lower()}{said[1:]}, not {shown}")


def _written(value: object) -> str:
    """Its repr; code may pass an integer that is too long to be written, or a list that is nested too deeply."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"such a {type(value).__name__}"


def unknown_key(location: Location, model: type[BaseModel]) -> Problem:
    """A key that `model` does not have, with its new place where it moved, else with the closest key that there is."""
    moved: Mapping[str, str] = getattr(model, "moved", {})
    if (place := moved.get(".".join(map(str, location)))) is not None:
        return Problem(location, f"unknown key; it moved to {place}")
    return Problem(location, f"unknown key; {suggest(str(location[-1]), _fields(model, location[:-1]))}")


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that are known at `location` below `model`."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            inner = next(models_in(model.model_fields[part].annotation), None)
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - annotations have no common type
    """The model classes that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def at_line(problem: Problem, files: Sequence[Path], overrides: Sequence[str] = ()) -> str:
    """The problem with the override that brought it, or else the file and line of its key."""
    for override in reversed(overrides):
        if f"{problem.key}.".startswith(f"{override.partition('=')[0]}."):
            shown = f"{override.partition('=')[0]}=..."  # the value may be a secret
            return f"override {shortened(repr(shown), 200)}: {problem}"
    for file in reversed(files):
        line = _line_of(file, problem.location)
        if line is not None:
            return f"{file}:{line}: {problem}"
    return f"{files[-1]}: {problem}" if files else str(problem)


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
