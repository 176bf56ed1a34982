"""What a diagnosis says of tokens: in how many the gap is, and which ones the teacher excludes."""

from dataclasses import replace

import pytest

from distillkit.diagnosis.figures_of import TokenNames, diagnosis_of
from distillkit.diagnosis.route_figures import Diagnosis
from distillkit.diagnosis.sentences import excluded, place
from distillkit.testing import ByteTokenizer
from engine.diagnosis.completions import completion, measured
from engine.diagnosis.usual_figures import gap


def test_in_how_many_tokens_the_gap_is(usual: Diagnosis) -> None:
    assert place(gap(usual, top_tenth=0.714)).endswith("; a tenth of the tokens hold 71% of it.")


END = ByteTokenizer.turn_end


@pytest.mark.parametrize(
    ("advantages", "ids", "said"),
    [
        ([-4.9] * 4, [65] * 4, "No token has an |advantage| over 5 nats: the teacher excludes nothing"),
        (
            [0, 0, 0, -6],
            [65, 66, 67, 68],
            "25% of the tokens have an |advantage| over 5 nats and hold 100% of the |gap|",
        ),
        ([0, 0, 0, -6], [65, 66, 67, 68], ": 'D', with a mean advantage of -6.00 nats."),
        (
            [0, 0, 0, 7],
            [65, 66, 67, 68],
            "hold 100% of the |gap|: 'D', with a mean advantage of 7.00 nats.",
        ),
        (
            [-1, 0, 0, -7],
            [65, 66, 67, END],
            "'<|im_end|>', with a mean advantage of -7.00 nats; '<|im_end|>' (mean advantage -7.00) is a special ",
        ),
        ([-7, 0, 0, 0], [END, END, 65, 65], ", with a mean advantage of -3.50 nats."),  # not excluded as such
        (
            [-4] * 4 + [-6, -6, 7],
            [65] * 4 + [65, 66, 66],
            ": 'B' above all, 2 of the 3, with a mean advantage of 0.500 nats.",
        ),
        (
            [-6, -6, -6, -9, 4, 4, 4],
            [65, 65, 65, END, 65, 65, 65],
            "'A' above all, 3 of the 4, with a mean advantage of -1.00 nats; '<|im_end|>' (mean advantage -9.00) is a ",
        ),
        ([-4] * 4 + [-6, 7], [65] * 4 + [65, 66], "of the |gap|: 2 different tokens."),
        ([-3, -3, -3, -7], [65, 65, 65, END], ": '<|im_end|>', with"),  # A has the larger sum, and is not excluded
    ],
)
def test_what_the_teacher_excludes(advantages: list[float], ids: list[int], said: str) -> None:
    scored = [completion(advantages, ids=ids)]
    assert said in excluded(diagnosis_of(measured(scored), ["teacher"]))


def test_a_token_that_is_a_part_of_a_character_is_named_by_its_id() -> None:
    names = TokenNames(lambda token: "\ufffd", frozenset())
    found = diagnosis_of(replace(measured([completion([-6, -6, -7], ids=[200, 200, 201])]), names=names), ["teacher"])
    assert "'\ufffd' (id 200) above all, 2 of the 3" in excluded(found)
