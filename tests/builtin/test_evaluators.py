import pytest

from distillkit.errors import ConfigError
from distillkit.testing import check_plugin, make_rollout, make_row, make_scored, make_teacher
from distillkit.testing.held_out import HeldOut
from distillkit.types import ScoredRollout
from distillkit_builtin.exact_match import ExactMatch, normalised
from distillkit_builtin.pattern import Pattern
from distillkit_builtin.reverse_kl import ReverseKL


def completion(text: str, expected: object = None, *, line: int = 1, teacher: str = "a") -> ScoredRollout:
    fields = {} if expected is None else {"expected_answer": expected}
    row = make_row(f"question {line}", line=line, **fields)  # type: ignore[arg-type]
    return make_scored(
        make_rollout(list(text.encode()), row=row), [-1.5] * len(text.encode()), teacher=teacher, row=row
    )


def context(*completions: ScoredRollout) -> HeldOut:
    return HeldOut(completions, [make_teacher("a"), make_teacher("b")])


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
    assert result.metrics == pytest.approx({"exact_match": 1 / 3, "no_answer": 1 / 3})
    assert result.routes == {
        "a": {"exact_match": 0.5, "no_answer": 0.0},
        "b": {"exact_match": 0.0, "no_answer": 1.0},
    }


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
    assert result.routes["b"]["mean_length"] == 2.0


async def test_pattern_counts_matches_of_each_route() -> None:
    held_out = context(
        completion("1. a\n2. b", line=1), completion("prose", line=2), completion("Yes.", line=3, teacher="b")
    )
    result = await Pattern(patterns={"a": r"^1\. "}).evaluate(held_out)
    assert result.routes == {"a": {"pattern_rate": 0.5}}


def test_they_keep_their_contracts() -> None:
    for evaluator in (ReverseKL(), ExactMatch(), Pattern(patterns={"teacher": "x"})):
        check_plugin(evaluator)
