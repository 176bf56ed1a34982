"""Evaluator `pattern`."""

import json
from dataclasses import replace

import pytest

from builtin.evaluators.completions import completion, context
from distillkit import ChatPrompts, EvalRequests, RoutedRow
from distillkit.errors import InputError
from distillkit.events import RowValue
from distillkit.testing import FakeEvalContext, make_context, make_teacher
from distillkit.types import Route
from distillkit_builtin.evaluators.pattern import Pattern


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


def test_a_pattern_that_compares_with_nothing_asks_for_nothing() -> None:
    rows = [RoutedRow(one.prompts.row, one.prompts.route, ChatPrompts((), {})) for one in [completion("abcd")]]
    assert Pattern(patterns={"a": "x"}, compare=False).requests(rows, [make_teacher("a")], 3) == EvalRequests()
