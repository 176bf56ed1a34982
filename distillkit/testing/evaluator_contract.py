"""What an evaluator owes the engine while it is open."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from distillkit.events import EvalResult
from distillkit.records import Rollout, Score
from distillkit.roles.evaluator import EvalRequests, Evaluator
from distillkit.testing.builders import make_teacher, require
from distillkit.testing.eval_context import FakeEvalContext
from distillkit.testing.held_to import awaited, given, held_to
from distillkit.testing.synthetic_batches import make_scored_rollouts
from distillkit.types import ChatPrompts, RoutedRow


@dataclass(frozen=True, slots=True)
class CountingContext(FakeEvalContext):
    """Counts what is asked of teachers and student besides what all evaluators share."""

    written: Counter[str] = field(default_factory=Counter)
    """Completions by teacher."""
    scored_by_student: list[int] = field(default_factory=list)
    """Completions a call."""

    async def sample_teacher(self, teacher: str, *, privileged: bool = True, seed: int = 0) -> Sequence[Rollout] | None:
        """As `FakeEvalContext` does."""
        found = await FakeEvalContext.sample_teacher(self, teacher, privileged=privileged, seed=seed)
        self.written[teacher] += len(found or ())
        return found

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score] | None:
        """As `FakeEvalContext` does."""
        if teacher is None:
            self.scored_by_student.append(len(rollouts))
        return await FakeEvalContext.score(self, rollouts, teacher=teacher, privileged=privileged)


async def check_evaluating(evaluator: Evaluator) -> None:
    """What it finds before training is of the rows that there are, and what it asks for is what it said.

    Raises PluginError otherwise.
    """
    context = CountingContext(make_scored_rollouts(), [make_teacher("teacher")], samples_and_scores=True)
    found = await awaited(evaluator, "evaluate", evaluator.evaluate(context))
    with held_to(evaluator, "evaluate"):
        _check_result(evaluator, given(evaluator, "evaluate", found, EvalResult), context)
    with held_to(evaluator, "requests"):
        _check_requests(evaluator, context)


def _check_result(evaluator: Evaluator, result: EvalResult, context: FakeEvalContext) -> None:
    """Its routes and rows are those of the context, and its numbers are finite and fit each other."""
    labels = {scored.prompts.route.label for scored in context.completions}
    require(set(result.routes) <= labels, evaluator, f"names routes {set(result.routes)}; there are {labels}")
    for values in (result.metrics, *result.routes.values()):
        require(all(math.isfinite(value) for value in values.values()), evaluator, f"found {dict(values)}")
    rows = {row.row_id for row in context.rows}
    for name, by_row in result.by_row.items():
        require(by_row.keys() <= rows, evaluator, f"`by_row` of {name} names rows {set(by_row) - rows}")
        total, count = sum(row.total for row in by_row.values()), sum(row.count for row in by_row.values())
        known = result.metrics.get(name)
        fits = known is None or (count and math.isclose(total / count, known, rel_tol=1e-4, abs_tol=1e-6))
        require(fits, evaluator, f"`by_row` of {name} makes {total:g} / {count:g}, which is not the metric {known}")


def _check_requests(evaluator: Evaluator, context: CountingContext) -> None:
    """It asks for no more than it said, since that is what `distillkit check` counts in."""
    rows = [RoutedRow(row, context.route(row), ChatPrompts(row.messages, {})) for row in context.rows]
    said = given(evaluator, "requests", evaluator.requests(rows, context.teachers, 1), EvalRequests)
    for teacher, count in context.written.items():
        known = said.teacher_completions.get(teacher, 0)
        require(
            count <= known,
            evaluator,
            f"has teachers write {count} completions of {len(rows)} rows; `requests` says {known}",
        )
    scored, known = sum(context.scored_by_student), said.student_scores
    require(scored <= known, evaluator, f"has the student score {scored} completions; `requests` says {known}")
