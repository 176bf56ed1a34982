"""`check_plugin`: does a plugin keep its role's contract? What is checked here is what the engine relies on."""

import json
import math
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

from pydantic import JsonValue, ValidationError

from distillkit.errors import PluginError, RowError
from distillkit.loop.blocking import run_blocking
from distillkit.records import ScoredRollout
from distillkit.registry import Registry
from distillkit.roles.dataset import Dataset
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import Plugin
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.scorer import Scorer
from distillkit.testing.builders import make_row, make_teacher, require
from distillkit.testing.dataset_contract import check_dataset
from distillkit.testing.held_to import given, held_to
from distillkit.testing.loss_contract import check_loss
from distillkit.testing.open_contract import check_open
from distillkit.testing.said_contract import check_loss_options
from distillkit.training_data import Batch
from distillkit.types import ChatPrompts, Route, RoutedRow, Row, Teacher

T = TypeVar("T")


def check_plugin(
    plugin: Plugin,
    *,
    teachers: Sequence[Teacher] = (),
    rows: Sequence[Row] = (),
    scored: Sequence[ScoredRollout] = (),
    batch: Batch | None = None,
) -> None:
    """Hold `plugin` to what the engine expects of its role. Also works where an event loop is running.

    Args:
        plugin: an instance with the options to test. A scorer without a teacher is given the first one.
        teachers: what routers and prompt builders choose from; default: two made-up ones, `a` and `b`.
        rows: what routers, prompt builders and evaluators read; default: made-up ones with `teacher_messages`.
        scored: what a loss makes its batch of, and a weighting weighs; default: made-up completions, with what its
            `needs` ask of scorers and its `sampler_needs` of the sampler.
        batch: what a student trains on; default: what a registered loss makes for a loss function that it knows.

    Raises:
        PluginError: naming the class and what it did, or what to pass where nothing can be made up.
    """
    teachers = teachers or (make_teacher("a"), make_teacher("b"))
    rows = rows or make_rows(teachers)
    if isinstance(plugin, Scorer) and not plugin.is_bound:
        plugin.bind(teachers[0])
    check_options(plugin)
    if isinstance(plugin, Dataset):
        with held_to(plugin, "read"):
            check_dataset(plugin)
    if isinstance(plugin, Router):
        check_router(plugin, teachers, rows)
    if isinstance(plugin, PromptBuilder):
        check_prompt_builder(plugin, teachers, rows)
    if isinstance(plugin, Loss):
        check_loss_options(plugin)
        with held_to(plugin, "batch"):
            check_loss(plugin, scored)
    if isinstance(plugin, Evaluator):
        check_evaluator(plugin, teachers, rows)
    run_blocking(check_open(plugin, batch, scored))


def make_rows(teachers: Sequence[Teacher]) -> list[Row]:
    """A short row for the first teacher, and a long one with a privileged prompt for the last."""
    last = teachers[-1]
    privileged: dict[str, JsonValue] = {last.messages_key: [{"role": "user", "content": "Say why, in one sentence."}]}
    return [
        make_row("Why?", line=1, teacher=teachers[0].name),
        make_row("Why is the sky blue? " * 20, line=2, teacher=last.name, **privileged),
    ]


def check_options(plugin: Plugin) -> None:
    """Its options are documented, refuse what they do not know, and survive being written and read again."""
    cls = type(plugin)
    require(cls.name, plugin, "has no `name`; add `name: ClassVar[str] = ...`")
    require(cls.__doc__, plugin, "has no docstring; its first line is what `distillkit plugins list` shows")
    for name, field in cls.model_fields.items():
        require(field.description, plugin, f"option {name!r} has no description; use Field(..., description=...)")
    require(cls.model_config.get("frozen"), plugin, "is not frozen; keep what Plugin.model_config says")
    require(cls.model_config.get("extra") == "forbid", plugin, "takes unknown options; keep extra='forbid'")
    with held_to(plugin, "model_dump_json"):
        written = json.loads(plugin.model_dump_json())
    registry = Registry.discover()
    if not any(info.role == cls.role and info.name == cls.name for info in registry.infos()):
        registry.add(cls)
    try:
        again = cls.model_validate(written, context={"registry": registry})
    except ValidationError as error:
        raise PluginError(f"{cls.__qualname__}: its options, written and read again, are refused: {error}") from error
    require(json.loads(again.model_dump_json()) == written, plugin, "its options change when written and read again")


def check_router(router: Router, teachers: Sequence[Teacher], rows: Sequence[Row]) -> None:
    """It routes each row the same way each time, to teachers that exist; RowErrors are allowed."""
    known = {teacher.name for teacher in teachers}
    for row in rows:
        route, again = (_unless_refused(router, "route", Route, row, teachers) for _ in range(2))
        require(route == again, router, f"routes {row.place} in two ways; `route` must be pure")
        if route is None:
            continue
        require(route.teachers, router, f"routes {row.place} to no teacher")
        unknown = sorted(set(route.teachers) - known)
        require(not unknown, router, f"routes {row.place} to {unknown}; the teachers are {sorted(known)}")
        require(all(0 < w < math.inf for w in route.weights.values()), router, "gives a weight that is not positive")


def check_prompt_builder(builder: PromptBuilder, teachers: Sequence[Teacher], rows: Sequence[Row]) -> None:
    """It gives messages to the student and to each teacher of the route, and to no other; RowErrors are allowed."""
    for row in rows:
        for teacher in teachers:
            chat = _unless_refused(builder, "build", ChatPrompts, row, Route.to(teacher.name), teachers)
            if chat is None:
                continue
            require(chat.student, builder, f"gives the student no messages for {row.place}")
            require(
                set(chat.teachers) == {teacher.name},
                builder,
                "must give messages to the route's teachers and no other",
            )
            require(all(chat.teachers.values()), builder, f"gives a teacher no messages for {row.place}")
            require(chat.fallbacks <= set(chat.teachers), builder, "names fallbacks of teachers outside the route")


def check_evaluator(evaluator: Evaluator, teachers: Sequence[Teacher], rows: Sequence[Row]) -> None:
    """What it says of held-out rows before a run are texts, the same each time."""
    route = Route.to(teachers[0].name)
    held_out = [
        RoutedRow(row, route, ChatPrompts(row.messages, dict.fromkeys(route.teachers, row.messages))) for row in rows
    ]
    for some in (held_out, held_out[:1]):
        with held_to(evaluator, "notes"):
            notes, again = evaluator.notes(some, teachers), evaluator.notes(some, teachers)
            texts = isinstance(notes, Collection) and not isinstance(notes, str | bytes)
            texts = texts and all(isinstance(note, str) for note in notes)
            require(texts, evaluator, "gives `notes` that are no list of texts")
            require(list(notes) == list(again), evaluator, "gives other `notes` of the same rows")


def _unless_refused(plugin: Plugin, method: str, wanted: type[T], *args: object) -> T | None:
    call: Callable[..., T] = getattr(plugin, method)
    try:
        with held_to(plugin, method):
            return given(plugin, method, call(*args), wanted)
    except RowError:
        return None
