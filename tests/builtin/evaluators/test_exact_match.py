"""Evaluator `exact_match`."""

import pytest

from builtin.evaluators.completions import completion, context
from distillkit.errors import ConfigError
from distillkit.events import RowValue
from distillkit_builtin.evaluators.exact_match import ExactMatch, normalised


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
