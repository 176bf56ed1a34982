"""Answers to unknown keys that name an option of ours, held to the plugins that a config chooses: not all have it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from distillkit.config.option_problems import Problem
from distillkit.errors import PluginNotFoundError
from distillkit.registry import Registry
from distillkit.roles.plugin import Plugin

OPTION = re.compile(r"\b(student|loss)\.([a-z_0-9]+)")
"""An option of the one student, or of the one loss, in an answer."""
ANSWER = "unknown key; "


def with_fitting_answers(
    problems: Sequence[Problem], values: Mapping[str, object], registry: Registry
) -> list[Problem]:
    """The problems of a config of these `values`; an answer says so where it names an option that is not there."""
    chosen = {role: _class_of(role, values.get(role), registry) for role in ("student", "loss")}
    return [replace(problem, message=_fitting(problem.message, chosen)) for problem in problems]


def _fitting(message: str, chosen: Mapping[str, type[Plugin] | None]) -> str:
    if not message.startswith(ANSWER):
        return message
    lacking = (said for said in dict.fromkeys(_lacking(message, chosen)) if said not in message)
    return ", but ".join([message, *lacking])


def _lacking(message: str, chosen: Mapping[str, type[Plugin] | None]) -> Iterator[str]:
    for role, option in OPTION.findall(message):
        plugin = chosen[role]
        if plugin is not None and option not in plugin.model_fields:
            yield f"{role} {plugin.name!r} has no {option}"


def _class_of(role: str, choice: object, registry: Registry) -> type[Plugin] | None:
    """The plugin that a config chooses; None where it names none that there is."""
    if isinstance(choice, Plugin):
        return type(choice)
    name = choice.get("name") if isinstance(choice, Mapping) else choice
    try:
        return registry.find(role, name) if isinstance(name, str) else None
    except PluginNotFoundError:
        return None
