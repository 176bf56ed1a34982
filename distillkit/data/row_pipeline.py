"""Rows on their way in: routed, given their prompts, measured, and counted."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distillkit.config.run_config import RunConfig
from distillkit.data.counted import counted
from distillkit.data.render import Renderer
from distillkit.errors import InputError, PluginError, RowError, suggest
from distillkit.roles.attribution import attribute_to
from distillkit.roles.returned import require_returned
from distillkit.types import ChatPrompts, Prompts, Route, RoutedRow, Row, Teacher

MOST_MIXTURES = 3
"""How many mixtures of teachers are told apart: a router may make one for every row."""


@dataclass(slots=True)
class RowPipeline:
    """Routes rows and builds their prompts, and counts what was found."""

    config: RunConfig
    teachers: tuple[Teacher, ...]
    rows_of: Counter[str]
    """Rows routed to each teacher."""
    fallbacks_of: Counter[str]
    """Rows without a prompt of their own for each teacher, scored under the student's messages."""
    unused: Counter[str] = field(default_factory=Counter)
    """Rows that have a field which belongs to prompts elsewhere, by the field."""
    mixtures: dict[tuple[tuple[str, float], ...], None] = field(default_factory=dict)
    """The routes to several teachers, each with its weights; `MOST_MIXTURES` of them and one, where there are more."""
    routed_to: tuple[Teacher, ...] = field(init=False)
    """The teachers that the router chooses from: all but the loss's references."""
    _names: Mapping[str, None] = field(init=False)
    """Their names, in the config's order."""
    _references: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Gather the teachers' names once, not for every row."""
        self._references = self.config.loss.references()
        self.routed_to = tuple(teacher for teacher in self.teachers if teacher.name not in self._references)
        self._names = {teacher.name: None for teacher in self.routed_to}

    @classmethod
    def of(cls, config: RunConfig) -> "RowPipeline":
        """The row pipeline of a config, with all counts at zero."""
        return cls(config, tuple(teacher.teacher for teacher in config.teachers), Counter(), Counter())

    def chat(self, row: Row) -> tuple[Route, ChatPrompts]:
        """The row's route and messages. Raises RowError; InputError where the loss takes no such route of any row."""
        route = self._route(row)
        chat = self._build(row, route)
        if chat.teachers.keys() != {*route.weights, *self._references}:
            prompts = self.config.prompts
            raise PluginError(
                f"prompt builder {prompts.name!r} ({type(prompts).__name__}) gives messages to {sorted(chat.teachers)} "
                f"at {row.place}; the row is routed to {sorted(route.teachers)}"
            )
        return route, chat

    def _route(self, row: Row) -> Route:
        try:
            route = self.config.router.route(row, self.routed_to)
        except Exception:  # attributed only after a failure, since there are millions of rows
            with attribute_to(self.config.router, f"in route() at {row.place}"):
                raise
        require_returned(self.config.router, route, Route, "route()", row.place)
        self._require_known(route)
        self._require_as_many_as_the_loss_takes(row, route)
        return route

    def _build(self, row: Row, route: Route) -> ChatPrompts:
        try:
            chat = self.config.prompts.build(row, self._with_references(route), self.teachers)
        except Exception:
            with attribute_to(self.config.prompts, f"in build() at {row.place}"):
                raise
        require_returned(self.config.prompts, chat, ChatPrompts, "build()", row.place)
        return chat

    def _with_references(self, route: Route) -> Route:
        """What prompts are built for: the loss's references read a prompt as teachers do."""
        return Route({**route.weights, **dict.fromkeys(self._references, 1.0)}) if self._references else route

    def render(self, rows: Sequence[Row], renderer: Renderer) -> list[Prompts]:
        """The prompts of many rows, which is faster than one after another. Raises the first's RowError."""
        prompts: list[Prompts] = []
        for found in renderer.render([RoutedRow(row, *self.chat(row)) for row in rows]):
            if isinstance(found, RowError):
                raise found
            prompts.append(found)
        return prompts

    def routed(self, row: Row) -> RoutedRow | RowError:
        """The row with its route and messages, or what is wrong with it."""
        try:
            return RoutedRow(row, *self.chat(row))
        except RowError as error:
            return error

    def count(self, row: Row) -> None:
        """Count the row for each teacher that scores it. Raises RowError as `chat` does."""
        self.add(*self.chat(row))

    def add(self, route: Route, chat: ChatPrompts) -> None:
        """Count a row with this route and these messages."""
        for name in route.weights:
            self.rows_of[name] += 1
        if len(route.weights) > 1 and len(self.mixtures) <= MOST_MIXTURES:
            self.mixtures[tuple(route.weights.items())] = None
        for name in chat.fallbacks & route.weights.keys():
            self.fallbacks_of[name] += 1
        for name in chat.unused:
            self.unused[name] += 1

    def _require_known(self, route: Route) -> None:
        router = self.config.router.name
        for name in route.weights:
            if name not in self._names:
                raise RowError("route", f"router {router!r} returned teacher {name!r}; {suggest(name, self._names)}")
        if not all(0 <= weight < math.inf for weight in route.weights.values()) or not any(route.weights.values()):
            raise RowError(
                "route",
                f"router {router!r} returned the weights {dict(route.weights)}; they are finite, at least 0, and not "
                "all 0: a row's teachers are one mixture of probabilities",
            )
        if len(route.weights) > 1 and self.config.teachers[0].share is not None:
            raise RowError(
                "route",
                f"router {router!r} returned {len(route.teachers)} teachers, and teachers[].share is for rows with one "
                "teacher each; leave the shares out",
            )

    def _require_as_many_as_the_loss_takes(self, row: Row, route: Route) -> None:
        """Raise InputError where router and loss do not fit together: it is said once, since no row is to blame."""
        loss, count = self.config.loss, len(route.weights)
        limit = loss.max_teachers()
        if limit is None or count <= limit:
            return
        way = loss.way_out("teachers", count, limit)
        raise InputError(
            f"router {self.config.router.name!r} sends a row to {count} teachers ({row.place}, to "
            f"{', '.join(route.weights)}), and loss {loss.name!r} takes {limit} with these options: "
            f"{f'{way}, or ' if way else ''}take a router that sends each row to {'one' if limit == 1 else 'fewer'}"
        )

    def notes(self, of: str) -> list[str]:
        """What the rows have not, or have in vain: `12 of 96 rows have no teacher_messages; scored under messages`."""
        fallbacks = [
            f"teacher {teacher.name!r}: {missing:,} of {counted(self.rows_of[teacher.name], of)} {_have(missing)} no "
            f"{teacher.messages_key}; scored under messages"
            for teacher in self.teachers
            if (missing := self.fallbacks_of[teacher.name])
        ]
        unused = [
            f"{counted(count, of)} {_have(count)} the field `{name}`, which is not used: prompts are made of `messages`"
            for name, count in sorted(self.unused.items())
        ]
        return fallbacks + unused


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
