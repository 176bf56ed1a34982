"""What every evaluator keeps: its contract, what it asks for, and the gap to a teacher in nats."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from builtin.evaluators.completions import completion, context
from distillkit import ChatPrompts, Evaluator, RoutedRow
from distillkit.events import RowValue
from distillkit.records import Rollout
from distillkit.testing import FakeEvalContext, check_plugin, make_teacher
from distillkit.testing.evaluator_contract import CountingContext
from distillkit.types import Route
from distillkit_builtin.evaluators.exact_match import ExactMatch
from distillkit_builtin.evaluators.pattern import Pattern
from distillkit_builtin.evaluators.reverse_kl import ReverseKL
from distillkit_builtin.evaluators.teacher_trace import TeacherTrace

FAILED = "failed"


class Partly(FakeEvalContext):
    """Some rows have no completion, since it failed."""

    async def rollouts(self) -> Sequence[Rollout]:
        return [one.rollout for one in self.completions if one.rollout.text != FAILED]


async def test_a_row_whose_completion_failed_is_not_counted() -> None:
    held_out = Partly(
        [
            completion("Final: 42", 42, line=1),
            completion(FAILED, 42, line=2),
            completion(FAILED, 42, line=3, teacher="b"),
        ],
        [make_teacher("a"), make_teacher("b")],
    )
    result = await ExactMatch().evaluate(held_out)
    assert result.metrics == {"exact_match": 1.0, "no_answer": 0.0, "no_answer_fraction": 0.0}
    assert set(result.routes) == {"a"}
    assert (await Pattern(patterns={"a": "42", "b": "42"}).evaluate(held_out)).routes == {"a": {"pattern_rate": 1.0}}
    nothing = Partly(held_out.completions[1:], held_out.teachers)
    assert (await ExactMatch().evaluate(nothing)).metrics == {}
    assert (await Pattern(patterns={"a": "42"}).evaluate(nothing)).routes == {}


async def test_reverse_kl_is_in_nats_a_token_and_a_completion() -> None:
    result = await ReverseKL().evaluate(context(completion("abcd", line=1), completion("ab", line=2, teacher="b")))
    assert result.metrics["reverse_kl"] == pytest.approx(0.5)
    assert result.metrics["reverse_kl_per_completion"] == pytest.approx(1.5)
    assert result.routes["a"]["reverse_kl_per_completion"] == pytest.approx(2.0)
    assert result.routes["b"]["completions"] == 1.0
    first, second = (line.prompts.row.row_id for line in (completion("abcd", line=1), completion("ab", line=2)))
    assert result.by_row == {
        "reverse_kl": {first: RowValue(2.0, 4.0), second: RowValue(1.0, 2.0)},
        "reverse_kl_per_completion": {first: RowValue(2.0), second: RowValue(1.0)},
    }


@pytest.mark.parametrize("alike", [True, False])
async def test_a_row_of_several_teachers_has_the_gap_to_their_mixture(*, alike: bool) -> None:
    """Of one teacher that is half a nat away a token, and another: the same, or one that is the student itself."""
    one, other = completion("abcd"), completion("abcd", teacher="b")
    if not alike:
        other = replace(other, scores={"b": replace(other.scores["b"], logprobs=one.rollout.logprobs)})
    prompts = replace(one.prompts, route=Route({"a": 3.0, "b": 1.0}))
    result = await ReverseKL().evaluate(context(replace(one, prompts=prompts, scores={**one.scores, **other.scores})))
    gap = 0.5 if alike else -math.log(0.75 * math.exp(-0.5) + 0.25)
    (found,) = result.by_row["reverse_kl"].values()
    assert (found.total, found.count) == (pytest.approx(4 * gap, abs=1e-6), 4.0)
    (found,) = result.by_row["reverse_kl_per_completion"].values()
    assert (found.total, found.count) == (pytest.approx(4 * gap, abs=1e-6), 1.0)
    assert result.metrics["reverse_kl_per_completion"] == pytest.approx(4 * gap, abs=1e-6)


def test_they_keep_their_contracts() -> None:
    for evaluator in (ReverseKL(), ExactMatch(), Pattern(patterns={"teacher": "x"}), TeacherTrace()):
        check_plugin(evaluator)


@pytest.mark.parametrize("evaluator", [Pattern(patterns={"a": "x", "b": "x", "a+b": "x"}), TeacherTrace()])
async def test_what_it_asks_for_is_what_it_says_before_the_run(evaluator: Evaluator) -> None:
    completions = [completion("abcd", line=1), completion("ab", line=2), completion("xy", line=3, teacher="b")]
    teachers = [make_teacher("a"), make_teacher("b"), make_teacher("idle")]
    written: Counter[str] = Counter()
    scored = 0
    for stage in ("before", "during", "after"):
        asked = CountingContext(completions, teachers, stage=stage, samples_and_scores=True)
        await evaluator.evaluate(asked)
        written += asked.written
        scored += sum(asked.scored_by_student)
    rows = [RoutedRow(one.prompts.row, one.prompts.route, ChatPrompts((), {})) for one in completions]
    said = evaluator.requests(rows, teachers, 3)
    assert dict(said.teacher_completions) == written
    assert said.student_scores == scored
    assert written["a"] > 0
