"""Rows on their way in: routed, given their prompts, measured, and counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distillkit.config.run_config import RunConfig
from distillkit.data.dataset import InBatches
from distillkit.data.render import Renderer, Routed, RowIds
from distillkit.errors import PluginError, RowError, suggest
from distillkit.events import Plan
from distillkit.roles.attribution import attribute_to
from distillkit.types import ChatPrompts, Prompts, Route, Row, Teacher


@dataclass(slots=True)
class Intake:
    """Routes rows and builds their prompts, and counts what was found."""

    config: RunConfig
    teachers: tuple[Teacher, ...]
    rows_of: Counter[str]
    """Rows routed to each teacher."""
    fallbacks_of: Counter[str]
    """Rows without a prompt of their own for each teacher, scored under the student's messages."""
    _names: Mapping[str, None] = field(init=False)
    """The teachers' names, in the config's order."""

    def __post_init__(self) -> None:
        """So that they are not gathered anew for every row."""
        self._names = {teacher.name: None for teacher in self.teachers}

    @classmethod
    def of(cls, config: RunConfig) -> "Intake":
        """Nothing counted yet."""
        return cls(config, tuple(teacher.teacher for teacher in config.teachers), Counter(), Counter())

    def chat(self, row: Row) -> tuple[Route, ChatPrompts]:
        """The row's route and messages. Raises RowError."""
        route = self._route(row)
        chat = self._build(row, route)
        if chat.teachers.keys() != route.weights.keys():
            prompts = self.config.prompts
            raise PluginError(
                f"prompt builder {prompts.name!r} ({type(prompts).__name__}) gives messages to {sorted(chat.teachers)} "
                f"at line {row.line}; the row is routed to {sorted(route.teachers)}"
            )
        return route, chat

    def _route(self, row: Row) -> Route:
        try:
            route = self.config.router.route(row, self.teachers)
        except Exception:  # blamed only then, since there are millions of rows
            with attribute_to(self.config.router, f"at line {row.line}"):
                raise
        self._require_known(route)
        return route

    def _build(self, row: Row, route: Route) -> ChatPrompts:
        try:
            return self.config.prompts.build(row, route, self.teachers)
        except Exception:
            with attribute_to(self.config.prompts, f"at line {row.line}"):
                raise

    def render(self, row: Row, renderer: Renderer) -> Prompts:
        """The row's prompts as token ids. Raises RowError."""
        return self.render_all([row], renderer)[0]

    def render_all(self, rows: Sequence[Row], renderer: Renderer) -> list[Prompts]:
        """The prompts of many rows, which is faster than one after another. Raises the first's RowError."""
        prompts: list[Prompts] = []
        for found in renderer.render([Routed(row, *self.chat(row)) for row in rows]):
            if isinstance(found, RowError):
                raise found
            prompts.append(found)
        return prompts

    def routed(self, row: Row) -> Routed | RowError:
        """The row with its route and messages, or what is wrong with it."""
        try:
            return Routed(row, *self.chat(row))
        except RowError as error:
            return error

    def count(self, row: Row) -> None:
        """`chat`, counted."""
        route, chat = self.chat(row)
        for name in route.weights:
            self.rows_of[name] += 1
        for name in chat.fallbacks:
            self.fallbacks_of[name] += 1

    def _require_known(self, route: Route) -> None:
        router = self.config.router.name
        for name in route.weights:
            if name not in self._names:
                raise RowError("route", f"router {router!r} returned teacher {name!r}; {suggest(name, self._names)}")
        limit = self.config.loss.max_teachers
        if not route.weights or (limit is not None and len(route.weights) > limit):
            raise RowError(
                "route",
                f"router {router!r} returned {len(route.teachers)} teachers; loss {self.config.loss.name!r} wants "
                f"{'1' if limit == 1 else f'1 to {limit}' if limit else 'at least 1'}",
            )

    def fallback_notes(self, of: str) -> list[str]:
        """`12 of 96 rows have no teacher_messages; scored under messages`, for each teacher that it happens to."""
        return [
            f"teacher {teacher.name!r}: {self.fallbacks_of[teacher.name]} of {self.rows_of[teacher.name]} {of} have no "
            f"{teacher.messages_key}; scored under messages"
            for teacher in self.teachers
            if self.fallbacks_of[teacher.name]
        ]


class Lengths:
    """Prompt lengths, gathered row by row in flat memory."""

    def __init__(self, intake: Intake, renderer: Renderer) -> None:
        """Nothing measured yet."""
        self._intake = intake
        self._renderer = renderer
        self.rows = 0
        self.student = Extent()
        self.teachers = Extent()

    @property
    def count(self) -> InBatches:
        """Render rows and add their lengths; a RowError for one that is too long."""
        return InBatches(self._count)

    def _count(self, rows: Sequence[Row]) -> list[RowError | None]:
        routed = [self._intake.routed(row) for row in rows]
        rendered = iter(self._renderer.ids([one for one in routed if isinstance(one, Routed)]))
        return [one if isinstance(one, RowError) else self._add(next(rendered)) for one in routed]

    def _add(self, ids: RowIds | RowError) -> RowError | None:
        if isinstance(ids, RowError):
            return ids
        self.rows += 1
        self.student.add(len(ids.student))
        self.teachers.add(sum(len(theirs) for theirs in ids.teachers.values()))
        return None


@dataclass(slots=True)
class Extent:
    """Token counts of many prompts."""

    total: int = 0
    longest: int = 0

    def add(self, tokens: int) -> None:
        """Count one more."""
        self.total += tokens
        self.longest = max(self.longest, tokens)

    def at_most(self, rows: int, of: int) -> int:
        """The tokens of `rows` prompts, drawn in turns from the `of` that were counted; a bound if they stop early."""
        return self.total * rows // of if rows % of == 0 else min(self.longest * rows, self.total * -(-rows // of))


def make_plan(config: RunConfig, lengths: Lengths, held_out: Lengths | None) -> Plan:
    """How much work the run is, at most."""
    train, new = config.train, config.sampling.max_completion_tokens
    rows = lengths.rows * config.data.epochs
    steps = -(-rows // train.prompt_groups_per_step)
    if train.max_steps is not None and train.max_steps < steps:
        steps, rows = train.max_steps, train.max_steps * train.prompt_groups_per_step
    each = config.sampling.completions_per_prompt
    evaluations = _evaluations(config, steps) if held_out is not None else 0
    eval_rows = held_out.rows if held_out is not None else 0
    return Plan(
        rows=rows,
        steps=steps,
        optimizer_steps=steps * train.num_substeps,
        eval_rows=eval_rows,
        evaluations=evaluations,
        completions=rows * each,
        longest_prompt=lengths.student.longest,
        sample_tokens=rows * each * new,
        score_tokens=each * (rows * new + lengths.teachers.at_most(rows, lengths.rows)),
        train_tokens=each * (rows * new + lengths.student.at_most(rows, lengths.rows)),
        eval_sample_tokens=evaluations * eval_rows * new,
        eval_score_tokens=evaluations * (eval_rows * new + (held_out.teachers.total if held_out is not None else 0)),
    )


def _evaluations(config: RunConfig, steps: int) -> int:
    """Before, after, and every `eval_every` steps between."""
    if not config.evaluators:
        return 0
    every = config.train.eval_every
    return 2 + ((steps - 1) // every if every else 0)
