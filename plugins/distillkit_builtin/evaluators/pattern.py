"""Does the student behave as its teacher was asked to? For behaviours that a regular expression can see."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field, JsonValue, PrivateAttr, TypeAdapter, field_validator

from distillkit import (
    Array,
    EvalContext,
    EvalRequests,
    EvalResult,
    Evaluator,
    InputError,
    Measure,
    Rollout,
    RoutedRow,
    RowValue,
    RunContext,
    Teacher,
    suggest,
)

COMPARISONS = (("teacher_rate", True), ("control_rate", False))
"""What a route's rate stands beside, and whether the teacher reads its privileged prompt for it."""
Rates = dict[str, dict[str, float]]


class Pattern(Evaluator):
    """Share of held-out completions that match their route's regular expression, beside teacher and control."""

    name: ClassVar[str] = "pattern"
    measures: ClassVar[Mapping[str, Measure]] = {
        "pattern_rate": Measure("answers in the teacher's form", "higher", "share"),
        "teacher_rate": Measure("the teacher itself", unit="share"),
        "control_rate": Measure("its model without its prompt", unit="share"),
    }

    patterns: dict[str, str] = Field(
        examples=[{"teacher": r"Final: .+$"}],
        description="Route value to regular expression, searched in the stripped completion.",
    )
    finished_only: bool = Field(
        True, description="A completion that was cut at the length limit does not count as a match."
    )
    compare: bool = Field(
        True,
        description="Before training, also measure the teacher itself under its own prompt (`teacher_rate`), and "
        "its model under the student's prompt with other seeds (`control_rate`), where its scorer can sample.",
    )
    _compared: Rates = PrivateAttr(default_factory=dict)

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: dict[str, str]) -> dict[str, str]:
        for route, pattern in patterns.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"the pattern of {route!r} is no regular expression: {error}") from error
        return patterns

    def check(self, run: RunContext) -> None:
        """Raise InputError if no teacher, or blend of teachers, has a pattern's name."""
        known = [teacher.name for teacher in run.teachers]
        for route in self.patterns:
            if route not in known and not set(route.split("+")) <= set(known):
                raise InputError(f"evaluator `pattern`: no route is called {route!r}; {suggest(route, known)}")

    def notes(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Sequence[str]:
        """Patterns of routes that no held-out row has."""
        routes = {routed_row.route.label for routed_row in rows}
        return [
            f"no held-out row has the route {route!r}, so that its pattern is never looked for: hold such rows out, or "
            "take the pattern out"
            for route in self.patterns
            if route not in routes
        ]

    def requests(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher], evaluations: int) -> EvalRequests:
        """Before training each teacher writes its rows' completions twice: under its own prompt, and the student's."""
        names = [teacher.name for teacher in teachers if teacher.name in self.patterns] if self.compare else []
        routed = Counter(name for row in rows for name in row.route.teachers)
        return EvalRequests({name: len(COMPARISONS) * routed[name] for name in names if routed[name]})

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """`pattern_rate` by route; routes without a pattern, and rows without a completion, are left out."""
        rows = {row.row_id: row for row in context.rows}
        mine: dict[str, list[Rollout]] = {}
        for rollout in await context.rollouts():
            mine.setdefault(context.route(rows[rollout.key.row_id]).label, []).append(rollout)
        if self.compare and context.stage == "before":
            for route in self.patterns:
                self._compared[route] = await self._compare(context, route)
        return EvalResult(
            {},
            {
                route: {"pattern_rate": self.rate(route, rollouts), **self._compared.get(route, {})}
                for route, rollouts in mine.items()
                if route in self.patterns
            },
            {
                "pattern_rate": {
                    rollout.key.row_id: RowValue(float(self.matches(route, rollout)))
                    for route, rollouts in mine.items()
                    if route in self.patterns
                    for rollout in rollouts
                }
            },
        )

    def state(self) -> Mapping[str, JsonValue]:
        """What the comparison before training found, for the tables of a run that is resumed."""
        return {route: {**rates} for route, rates in self._compared.items()}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """Restore what `state` gave."""
        self._compared = TypeAdapter(Rates).validate_python(state)

    def rate(self, route: str, rollouts: Sequence[Rollout]) -> float:
        """The share of completions that match the route's pattern."""
        return sum(self.matches(route, rollout) for rollout in rollouts) / len(rollouts)

    def matches(self, route: str, rollout: Rollout) -> bool:
        """Whether one completion shows the route's behaviour."""
        finished = rollout.finish_reason == "stop" or not self.finished_only
        return finished and re.search(self.patterns[route], rollout.text.strip()) is not None

    async def _compare(self, context: EvalContext, route: str) -> dict[str, float]:
        rates: dict[str, float] = {}
        if not any(teacher.name == route for teacher in context.teachers):
            return rates
        for name, privileged in COMPARISONS:
            rollouts = await context.sample_teacher(route, privileged=privileged, seed=1)
            if rollouts:
                rates[name] = self.rate(route, rollouts)
        return rates
