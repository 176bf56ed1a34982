"""What evaluators say of held-out rows before a run: what cannot be compared, and prompts that never ask for it."""

import pytest
from pydantic import JsonValue

from builtin.evaluators.held_out import held_out
from distillkit import Evaluator, RoutedRow
from distillkit.testing import (
    make_teacher,
)
from distillkit_builtin.evaluators.exact_match import ExactMatch
from distillkit_builtin.evaluators.pattern import Pattern
from distillkit_builtin.evaluators.reverse_kl import ReverseKL
from distillkit_builtin.evaluators.teacher_trace import TeacherTrace


def said(evaluator: Evaluator, *rows: RoutedRow) -> list[str]:
    return list(evaluator.notes(rows, [make_teacher("a"), make_teacher("b")]))


def test_rows_that_exact_match_can_compare_get_no_note() -> None:
    assert said(ExactMatch(), held_out(expected_answer="42"), held_out(expected_answer=42)) == []
    assert said(ExactMatch(), held_out(expected_answer=" 42 \n")) == []


@pytest.mark.parametrize(
    ("answers", "notes"),
    [
        (
            [None, None],
            ["no held-out row has `expected_answer`, so that nothing is compared: add the field, make it of"],
        ),
        (["42", None, None], ["2 of 3 held-out rows have no `expected_answer` and are not counted (first: "]),
        (["6 * 7\n#### 42", "42"], ["`expected_answer` of 1 of 2 held-out rows (first: "]),
        ([["42", "43"]], ["`expected_answer` of 1 of 1 held-out rows (first: "]),
        (["", "42", " "], ["`expected_answer` of 2 of 3 held-out rows (first: "]),
    ],
)
def test_exact_match_says_what_it_cannot_compare(answers: list[JsonValue], notes: list[str]) -> None:
    rows = [held_out(**({} if answer is None else {"expected_answer": answer})) for answer in answers]
    found = said(ExactMatch(), *rows)
    assert [note[: len(start)] for note, start in zip(found, notes, strict=True)] == notes


def test_expected_answers_of_several_lines_come_with_what_to_write() -> None:
    (note,) = said(ExactMatch(), held_out(expected_answer="6 * 7 is 42\n#### 42"))
    assert (
        "keep the final answer alone, such as data.format: {expected_answer: \"{{ answer.split('####')[-1] }}\"}"
        in note
    )


@pytest.mark.parametrize(
    ("pattern", "prompt", "asks"),
    [
        (r"^\s*Final:\s*(.+?)\s*$", "6 * 7?", False),
        (r"^\s*Final:\s*(.+?)\s*$", "6 * 7? Write `final: 42`.", True),
        (r"\\boxed\{(.+)\}", "6 * 7?", False),
        (r"\\boxed\{(.+)\}", "6 * 7? Write \\boxed{42}.", True),
        (r"(?i)[A-Za-z]*####\s*(?P<answer>\d+)", "6 * 7?", True),  # no word is looked for
    ],
)
def test_prompts_that_do_not_ask_for_the_pattern_are_noticed(pattern: str, prompt: str, asks: bool) -> None:
    found = said(ExactMatch(pattern=pattern), held_out(prompt, expected_answer="42"))
    assert bool(found) != asks
    assert all("ask for it in the prompts" in note for note in found)


def test_prompts_that_mostly_ask_are_enough_and_a_word_by_chance_is_not() -> None:
    asks, asks_not = held_out("Why? Final: <answer>", expected_answer="6"), held_out("6?", expected_answer="6")
    assert said(ExactMatch(), asks, asks_not) == []
    (note,) = said(ExactMatch(), held_out("Her final exam?", expected_answer="6"), asks_not, asks_not)
    assert note.startswith("2 of 3 held-out prompts of the student do not hold 'Final'")


def test_a_pattern_of_a_route_without_held_out_rows_is_noticed() -> None:
    found = said(Pattern(patterns={"a": "x", "b": "y", "a+b": "z"}), held_out(route="a"))
    assert [note.partition(",")[0] for note in found] == [
        "no held-out row has the route 'b'",
        "no held-out row has the route 'a+b'",
    ]


def test_the_other_evaluators_have_nothing_to_say_of_rows() -> None:
    assert said(ReverseKL(), held_out()) == said(TeacherTrace(), held_out()) == []
