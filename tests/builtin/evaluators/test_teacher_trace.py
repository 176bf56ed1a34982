"""Evaluator `teacher_trace`."""

from collections.abc import Callable, Sequence

import pytest
from conftest import question

from builtin.evaluators.completions import completion
from distillkit import Registry, RunConfig
from distillkit.errors import InputError
from distillkit.events import RowValue
from distillkit.preflight.prepared_run import prepare_run
from distillkit.records import Rollout, Score, ScoreRequest
from distillkit.testing import FakeEvalContext, make_teacher
from distillkit_builtin.evaluators.teacher_trace import TeacherTrace


class Doubtful(FakeEvalContext):
    """Its student gives every token of a trace half a nat less than the teacher did, and cannot score row 2."""

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score]:
        asked = [ScoreRequest(one, "student", one.request.prompt_ids) for one in rollouts]
        return [Score(one, one.rollout.logprobs - 0.5, None) for one in asked if one.key.row_id[0] != "2"]


async def test_teacher_trace_is_the_gap_of_the_nlls_over_all_tokens() -> None:
    held_out = Doubtful(
        [completion("abcd", line=1), completion("ab", line=2), completion("xy", line=3, teacher="b")],
        [make_teacher("a"), make_teacher("b")],
        samples_and_scores=True,
    )
    result = await TeacherTrace().evaluate(held_out)
    teacher = -float(held_out.completions[0].rollout.logprobs.mean())
    assert result.routes["a"] == pytest.approx(
        {"trace_nll_gap": 0.5, "trace_student_nll": teacher + 0.5, "trace_teacher_nll": teacher}
    )
    assert set(result.routes) == {"a", "b"}
    assert [value for row, value in result.by_row["trace_nll_gap"].items() if row[0] == "1"] == [RowValue(2.0, 4.0)]
    assert len(result.by_row["trace_nll_gap"]) == 2  # row 2 could not be scored
    assert (result.metrics["trace_nll_gap"], result.metrics["traces_missing"]) == (pytest.approx(0.5), 1.0)


async def test_teacher_trace_samples_once() -> None:
    evaluator, first = TeacherTrace(), completion("abcd")
    before = await evaluator.evaluate(FakeEvalContext([first], [make_teacher("a")], samples_and_scores=True))
    other = FakeEvalContext([completion("something else")], [make_teacher("a")], stage="after", samples_and_scores=True)
    assert (await evaluator.evaluate(other)).metrics == before.metrics


def test_teacher_trace_is_refused_before_the_run_where_it_cannot_be_measured(
    fake_config: Callable[..., RunConfig], jsonl: Callable[..., str]
) -> None:
    config = fake_config(evaluators=["teacher_trace"], data={"eval_path": jsonl([question("held out")], "eval.jsonl")})
    with pytest.raises(InputError, match=r"'teacher_trace' scores given tokens under the student, and 'fake'"):
        prepare_run(config, Registry.discover(), print)
