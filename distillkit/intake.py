"""Rows on their way in: routed, given their prompts, measured, and counted."""

from collections import Counter
from dataclasses import dataclass

from distillkit.blame import blame
from distillkit.config import RunConfig
from distillkit.errors import PluginError, RowError, suggest
from distillkit.events import Plan
from distillkit.render import Renderer
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

    @classmethod
    def of(cls, config: RunConfig) -> "Intake":
        """Nothing counted yet."""
        return cls(config, tuple(teacher.teacher for teacher in config.teachers), Counter(), Counter())

    def chat(self, row: Row) -> tuple[Route, ChatPrompts]:
        """The row's route and messages. Raises RowError."""
        router, prompts, at = self.config.router, self.config.prompts, f"at line {row.line}"
        with blame(router, at):
            route = router.route(row, self.teachers)
        self._require_known(route)
        with blame(prompts, at):
            chat = prompts.build(row, route, self.teachers)
        if set(chat.teachers) != set(route.teachers):
            raise PluginError(
                f"prompt builder {prompts.name!r} ({type(prompts).__name__}) gives messages to {sorted(chat.teachers)} "
                f"{at}; the row is routed to {sorted(route.teachers)}"
            )
        return route, chat

    def render(self, row: Row, renderer: Renderer) -> Prompts:
        """The row's prompts as token ids. Raises RowError."""
        route, chat = self.chat(row)
        return renderer.render(row, route, chat)

    def count(self, row: Row) -> None:
        """`chat`, counted."""
        route, chat = self.chat(row)
        self.rows_of.update(route.teachers)
        self.fallbacks_of.update(chat.fallbacks)

    def _require_known(self, route: Route) -> None:
        known = [teacher.name for teacher in self.teachers]
        router = self.config.router.name
        for name in route.teachers:
            if name not in known:
                raise RowError("route", f"router {router!r} returned teacher {name!r}; {suggest(name, known)}")
        limit = self.config.loss.max_teachers
        if not route.teachers or (limit is not None and len(route.teachers) > limit):
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

    def count(self, row: Row) -> None:
        """Render one row and add its lengths. Raises RowError if it is too long."""
        prompts = self._intake.render(row, self._renderer)
        self.rows += 1
        self.student.add(len(prompts.student))
        self.teachers.add(sum(len(ids) for ids in prompts.teachers.values()))


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
