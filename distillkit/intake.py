"""Rows on their way in: routed, given their prompts, measured, and counted."""

import math
from collections import Counter
from dataclasses import dataclass

from distillkit.config import RunConfig
from distillkit.errors import RowError, suggest
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
        route = self.config.router.route(row, self.teachers)
        self._require_known(route)
        return route, self.config.prompts.build(row, route, self.teachers)

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
        self._student = 0
        self._teachers = 0
        self._longest = 0

    def count(self, row: Row) -> None:
        """Render one row and add its lengths. Raises RowError if it is too long."""
        prompts = self._intake.render(row, self._renderer)
        self._student += len(prompts.student)
        self._teachers += sum(len(ids) for ids in prompts.teachers.values())
        self._longest = max(self._longest, len(prompts.student))

    def plan(self, config: RunConfig, rows: int, eval_rows: int) -> Plan:
        """How much work the run is, at most; where `max_steps` ends it early, at the mean prompt length."""
        groups, each = config.train.prompt_groups_per_step, config.sampling.completions_per_prompt
        admitted = rows * config.data.epochs
        steps = -(-admitted // groups)
        if config.train.max_steps is not None and config.train.max_steps < steps:
            steps, admitted = config.train.max_steps, config.train.max_steps * groups
        completions = admitted * each
        new = completions * config.sampling.max_completion_tokens
        share = completions / rows
        return Plan(
            rows=admitted,
            steps=steps,
            optimizer_steps=steps * config.train.num_substeps,
            eval_rows=eval_rows,
            completions=completions,
            longest_prompt=self._longest,
            sample_tokens=new,
            score_tokens=new + math.ceil(self._teachers * share),
            train_tokens=new + math.ceil(self._student * share),
        )
