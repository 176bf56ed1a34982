"""What pydantic found wrong with a config, as lines that name file, line, key and how to fix it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distillkit.config.other_names import VALUES, lacked_here, named_here
from distillkit.errors import suggest
from distillkit.files.strict_json import Location, shortened
from distillkit.roles.type_aliases import unaliased

SHOWN_PROBLEMS = 20
MOST_KEYS_WRITTEN = 4
"""A group of so many options is written out with its defaults in an error, a larger one by their names."""
DEEPEST_KEY, MOST_KEYS = 6, 1000
"""How far a section that is not known is searched for names of other tools."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config."""

    location: Location
    message: str
    moved_to: Location = ()
    """The new location of a key that was moved; empty for any other problem."""

    @classmethod
    def moved(cls, location: Location, new: Location) -> "Problem":
        """The problem of a key that was moved from `location` to `new`."""
        return cls(location, f"is now {'.'.join(map(str, new))}", new)

    def below(self, prefix: Location) -> "Problem":
        """The same problem of a model that stands at `prefix`."""
        if self.moved_to:
            return Problem.moved(prefix + self.location, prefix + self.moved_to)
        return Problem(prefix + self.location, self.message)

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
    found = [details for details in errors if not _follows_from_another(details, errors, model)]
    shown = [problem for details in found[:SHOWN_PROBLEMS] for problem in _problems(details, model)]
    more = len(found) - SHOWN_PROBLEMS
    return [*shown, Problem((), f"... and {more} more problems")] if more > 0 else shown


def _follows_from_another(details: ErrorDetails, errors: Sequence[ErrorDetails], model: type[BaseModel]) -> bool:
    """A list that is too short only as its items are wrong, and a key that is missing as it is at its old location."""
    location = details["loc"]
    if details["type"] == "missing":
        moved = [_new_location(other["loc"], model) for other in errors if other["type"] == "extra_forbidden"]
        return any(new[: len(location)] == location for new in moved)
    return details["type"] == "too_short" and any(
        other["loc"][: len(location)] == location and len(other["loc"]) > len(location) for other in errors
    )


def _problems(details: ErrorDetails, model: type[BaseModel]) -> Iterator[Problem]:
    location = tuple(details["loc"])
    cause = details.get("ctx", {}).get("error")
    if isinstance(cause, PluginOptionsError):
        yield from (problem.below(location) for problem in cause.problems)
    elif details["type"] == "extra_forbidden":
        yield from _unknown_keys(location, model, details["input"])
    elif cause is not None:
        yield Problem(location, str(cause))
    elif details["type"] == "missing":
        yield Problem(location, "is required")
    else:
        shown = shortened(_written(details["input"]), 60)
        said = details["msg"].replace("valid tuple", "list")  # which configs write it as
        said = _group_wanted(location, model) if details["type"] == "model_type" else f"{said[0].lower()}{said[1:]}"
        yield Problem(location, f"{said}, not {shown}{_meant(details)}")


def _group_wanted(location: Location, model: type[BaseModel]) -> str:
    """How a group of options is written, where one value stands in its place."""
    group = next(_groups_at(model, location), None)
    if group is None:
        return "is a group of options"
    keys = group.model_fields.items()
    if len(keys) > MOST_KEYS_WRITTEN:
        return f"is a group of the options {', '.join(name for name, _ in keys)}"
    written = [f"{name}: {'...' if field.is_required() else field.get_default()}" for name, field in keys]
    return f"is a group of options: {{{', '.join(written)}}}"


def _meant(details: ErrorDetails) -> str:
    """`; did you mean ...?`, where that can be told of what is given."""
    if details["type"] == "literal_error":
        return _value_meant(details)
    given = details["input"]
    one = details["type"] == "tuple_type" and isinstance(given, str | int | float) and given != ""
    return f"; did you mean [{shortened(str(given), 60)}]?" if one else ""


def _value_meant(details: ErrorDetails) -> str:
    """`; did you mean 'bfloat16'?`, where one of the values that are known is meant by another."""
    known, given = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected"))), details["input"]
    if not isinstance(given, str):
        return ""
    close = [VALUES.get(given.lower()), *get_close_matches(given[:100].lower(), known, n=1)]
    meant = next((value for value in close if value in known), None)
    return "" if meant is None else f"; did you mean {meant!r}?"


def _written(value: object) -> str:
    """Its repr; code may pass an integer that is too long to be written, or a list that is nested too deeply."""
    try:
        return repr(value)
    except (ValueError, RecursionError):
        return f"such a {type(value).__name__}"


def unknown_key(location: Location, model: type[BaseModel]) -> Problem:
    """A key that `model` does not have.

    It comes with its new location where it moved, with what to do where it is gone, with ours where another tool calls
    something so, else with the closest that there is.
    """
    if new := _new_location(location, model):
        return Problem.moved(location, new)
    if instead := _instead(location, model):
        return Problem(location, instead)
    here = _named_here(location, model) or _lacked_here(location, model)
    return Problem(location, f"unknown key; {here or suggest(str(location[-1]), _fields(model, location[:-1]))}")


def _unknown_keys(location: Location, model: type[BaseModel], value: object) -> Iterator[Problem]:
    """The key itself, or the keys in it that another tool calls so: `actor_rollout_ref` holds `rollout.n`."""
    inside = (tuple(keys) for keys in islice(_keys_in(value), MOST_KEYS) if keys)
    named = ((keys, _named_here((*location, *keys), model, ours=False)) for keys in inside)
    problems = [Problem((*location, *keys), f"unknown key; {here}") for keys, here in named if here]
    yield from problems or [unknown_key(location, model)]


def _keys_in(value: object, depth: int = 0) -> Iterator[list[str]]:
    """The way to each value in a section of sections; code may pass one that holds itself."""
    if not isinstance(value, Mapping) or depth == DEEPEST_KEY:
        yield []
        return
    yield from ([str(key), *rest] for key, inner in value.items() for rest in _keys_in(inner, depth + 1))


def _named_here(location: Location, model: type[BaseModel], *, ours: bool = True) -> str | None:
    return named_here(location, list(model.model_fields), getattr(model, "role", ""), ours=ours)


def _lacked_here(location: Location, model: type[BaseModel]) -> str | None:
    role, name = getattr(model, "role", ""), getattr(model, "name", "")
    option = lacked_here(location, list(model.model_fields), role) if role else None
    return None if option is None else f"here it is {role}.{option}, but {role} {name!r} has no {option}"


def _new_location(location: Location, model: type[BaseModel]) -> Location:
    """Where an option of a plugin stands now (`Plugin.moved`); empty: it did not move."""
    moved: Mapping[str, str] = getattr(model, "moved", {})
    new = moved.get(".".join(map(str, location)))
    return () if new is None else tuple(new.split("."))


def _instead(location: Location, model: type[BaseModel]) -> str:
    """What to do in the place of an option that a plugin has no more (`Plugin.gone`); empty: it never had it."""
    gone: Mapping[str, str] = getattr(model, "gone", {})
    return gone.get(".".join(map(str, location)), "")


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that are known at `location` below `model`."""
    return [name for group in _groups_at(model, location) for name in group.model_fields]


def _groups_at(model: type[BaseModel], location: Location) -> Iterator[type[BaseModel]]:
    """The model at `location` below `model`; nothing where there is none."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            inner = next(models_in(model.model_fields[part].annotation), None)
            if inner is None:
                return
            model = inner
    yield model


def models_in(annotation: Any, inside: tuple[Any, ...] = ()) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - no common type
    """The model classes that an annotation names, which stands `inside` of others: an alias may contain itself."""
    plain = unaliased(annotation)
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        yield plain
    if annotation not in inside:
        for argument in get_args(plain):
            yield from models_in(argument, (*inside, annotation))
