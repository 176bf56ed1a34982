"""What pydantic found wrong with a config, as lines that name the key and how to mend it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from distillkit.errors import suggest

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a config."""

    location: Location
    message: str

    @property
    def key(self) -> str:
        """The config key as a user writes it: `teachers.0.scorer.batch_size`."""
        return ".".join(map(str, self.location))


class PluginOptionsError(ValueError):
    """The options of one plugin are wrong; locations are relative to the plugin."""

    def __init__(self, problems: list[Problem]) -> None:
        """Keep the problems for whoever knows where the plugin stands."""
        super().__init__("; ".join(f"{problem.key}: {problem.message}" for problem in problems))
        self.problems = problems


def option_problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every problem in `error`, those inside nested plugins too."""
    errors = error.errors()
    return [
        problem
        for details in errors
        if not _follows_from_another(details, errors)
        for problem in _problems(details, model)
    ]


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
        yield Problem(location, f"unknown key; {suggest(str(location[-1]), _fields(model, location[:-1]))}")
    elif cause is not None:
        yield Problem(location, str(cause))
    elif details["type"] == "missing":
        yield Problem(location, "is required")
    else:
        shown = repr(details["input"])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        yield Problem(location, f"{details['msg'][0].lower()}{details['msg'][1:]}, not {shown}")


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that are known at `location` below `model`."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            inner = next(_models_in(model.model_fields[part].annotation), None)
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - annotations have no common type
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
