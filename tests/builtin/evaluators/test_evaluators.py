"""What each evaluator measures of completions."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from conftest import question

from distillkit import ChatPrompts, EvalRequests, Evaluator, Registry, RoutedRow, RunConfig
from distillkit.errors import ConfigError, InputError
from distillkit.events import RowValue
from distillkit.preflight.prepared_run import prepare_run
from distillkit.records import Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.testing import (
    FakeEvalContext,
    check_plugin,
    make_context,
    make_rollout,
    make_row,
    make_scored,
    make_teacher,
)
from distillkit.testing.evaluator_contract import CountingContext
from distillkit.types import Route
from distillkit_builtin.evaluators.exact_match import ExactMatch, normalised
from distillkit_builtin.evaluators.pattern import Pattern
from distillkit_builtin.evaluators.reverse_kl import ReverseKL
from distillkit_builtin.evaluators.teacher_trace import TeacherTrace

FAILED = "failed"


class Partly(FakeEvalContext):
    """Some rows have no completion, since it failed."""

    async def rollouts(self) -> Sequence[Rollout]:
        return [one.rollout for one in self.completions if one.rollout.text != FAILED]


class Doubtful(FakeEvalContext):
    """Its student gives every token of a trace half a nat less than the teacher did, and cannot score row 2."""

    async def score(
        self, rollouts: Sequence[Rollout], *, teacher: str | None = None, privileged: bool = True
    ) -> Sequence[Score]:
        asked = [ScoreRequest(one, "student", one.request.prompt_ids) for one in rollouts]
        return [Score(one, one.rollout.logprobs - 0.5, None) for one in asked if one.key.row_id[0] != "2"]


def completion(text: str, expected: object = None, *, line: int = 1, teacher: str = "a") -> ScoredRollout:
    fields = {} if expected is None else {"expected_answer": expected}
    row = make_row(f"question {line}", line=line, **fields)  # type: ignore[arg-type]
    return make_scored(
        make_rollout(list(text.encode()), row=row), [-1.5] * len(text.encode()), teacher=teacher, row=row
    )


def context(*completions: ScoredRollout) -> FakeEvalContext:
    return FakeEvalContext(completions, [make_teacher("a"), make_teacher("b")])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6 * 7 is 42.\nFinal: 42", "42"),
        ("Final: 42\n\n  ", "42"),
        ("  Final:   1, 234 ", "1234"),
        ("Final: Paris", "paris"),
        ("Final: 42\nbecause", None),
        ("the final answer is 42", None),
        ("", None),
        ("Final:", None),
    ],
)
def test_the_answer_is_the_last_line_that_is_not_empty(text: str, answer: str | None) -> None:
    assert ExactMatch().answer(text) == answer


async def test_exact_match_counts_what_had_no_answer_and_leaves_out_rows_without_one() -> None:
    held_out = context(
        completion("Final: 42", 42, line=1),
        completion("Final: 41", "42", line=2),
        completion("no idea", "42", line=3, teacher="b"),
        completion("Final: 1", line=4),
    )
    result = await ExactMatch().evaluate(held_out)
    assert result.metrics == pytest.approx({"exact_match": 1 / 3, "no_answer": 1, "no_answer_fraction": 1 / 3})
    assert result.routes == {
        "a": {"exact_match": 0.5, "no_answer": 0.0, "no_answer_fraction": 0.0},
        "b": {"exact_match": 0.0, "no_answer": 1.0, "no_answer_fraction": 1.0},
    }
    rows = [scored.prompts.row.row_id for scored in held_out.completions[:3]]
    assert result.by_row == {
        "exact_match": dict(zip(rows, map(RowValue, (1.0, 0.0, 0.0)), strict=True)),
        "no_answer_fraction": dict(zip(rows, map(RowValue, (0.0, 0.0, 1.0)), strict=True)),
    }


async def test_exact_match_with_an_optional_group_takes_what_did_not_match_for_no_answer() -> None:
    evaluator = ExactMatch(pattern=r"^Final:\s*(\d+)?")
    result = await evaluator.evaluate(context(completion("Final: 42", 42), completion("Final: dunno", 42, line=2)))
    assert result.metrics == {"exact_match": 0.5, "no_answer": 1.0, "no_answer_fraction": 0.5}


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


async def test_exact_match_without_expected_answers_says_so() -> None:
    assert (await ExactMatch().evaluate(context(completion("Final: 1")))).metrics == {"no_expected_answer": 1.0}


@pytest.mark.parametrize("pattern", ["(", "no group"])
def test_exact_match_wants_a_regular_expression_with_a_group(pattern: str, fake_config: object) -> None:
    with pytest.raises(ConfigError, match=r"evaluators\.0\.pattern: "):
        fake_config(evaluators=[{"name": "exact_match", "pattern": pattern}])  # type: ignore[operator]


def test_answers_are_compared_without_space_commas_and_case() -> None:
    assert normalised(" 1, 234 ") == normalised("1234")
    assert normalised("Yes") == normalised("yES")
    assert normalised("12.5") != normalised("125")


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


async def test_pattern_counts_matches_of_each_route() -> None:
    held_out = context(
        completion("1. a\n2. b", line=1), completion("prose", line=2), completion("Yes.", line=3, teacher="b")
    )
    result = await Pattern(patterns={"a": r"^1\. "}).evaluate(held_out)
    assert result.routes == {"a": {"pattern_rate": 0.5}}
    first, second, _ = (scored.prompts.row.row_id for scored in held_out.completions)
    assert result.by_row == {"pattern_rate": {first: RowValue(1.0), second: RowValue(0.0)}}


def test_pattern_refuses_a_route_that_is_not_there() -> None:
    run = make_context(teachers=[make_teacher("a"), make_teacher("b")])
    with pytest.raises(InputError, match=r"no route is called 'aa'; did you mean 'a'\? Known: a, b"):
        Pattern(patterns={"a": "x", "aa": "y"}).check(run)
    Pattern(patterns={"a": "x", "a+b": "y"}).check(run)


async def test_pattern_knows_the_labels_of_blended_routes() -> None:
    one = completion("1. a")
    other = completion("1. a", teacher="b")
    prompts = replace(one.prompts, route=Route({"a": 0.5, "b": 0.5}))
    blend = replace(one, prompts=prompts, scores={**one.scores, **other.scores})
    result = await Pattern(patterns={"a+b": "1"}).evaluate(context(blend))
    assert result.routes == {"a+b": {"pattern_rate": 1.0}}


async def test_pattern_keeps_its_comparison_when_a_run_is_resumed() -> None:
    first, second = Pattern(patterns={"a": "1"}), Pattern(patterns={"a": "1"})
    scored = [completion("1. a")]
    before = await first.evaluate(FakeEvalContext(scored, [make_teacher("a")], stage="before", samples_and_scores=True))
    assert before.routes == {"a": {"pattern_rate": 1.0, "teacher_rate": 1.0, "control_rate": 1.0}}
    second.restore(json.loads(json.dumps(first.state())), {})
    after = await second.evaluate(FakeEvalContext(scored, [make_teacher("a")], stage="after", samples_and_scores=True))
    assert after.routes == before.routes


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


def test_a_pattern_that_compares_with_nothing_asks_for_nothing() -> None:
    rows = [RoutedRow(one.prompts.row, one.prompts.route, ChatPrompts((), {})) for one in [completion("abcd")]]
    assert Pattern(patterns={"a": "x"}, compare=False).requests(rows, [make_teacher("a")], 3) == EvalRequests()
