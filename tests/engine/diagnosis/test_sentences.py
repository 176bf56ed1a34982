"""What a diagnosis says in sentences: of the gap, of lengths, and of how certain each side is."""

from dataclasses import replace
from pathlib import Path

import pytest

from distillkit.diagnosis.figures_of import diagnosis_of
from distillkit.diagnosis.route_figures import LARGE, Diagnosis, GapFigures, LengthFigures, PromptFigures
from distillkit.diagnosis.scored_tokens import Estimate
from distillkit.diagnosis.sentences import (
    LONGER,
    MOST,
    NOTHING,
    TOO_FAR,
    certainty,
    endings,
    excluded,
    place,
    sentences,
    worth,
)
from engine.diagnosis.completions import completion, measured
from engine.diagnosis.usual_figures import entropy, gap, lengths


@pytest.mark.parametrize(
    ("mean", "said"),
    [
        (
            Estimate(0.020, 0.001),
            "The reverse KL (sampling minus teacher) is 0.020 ± 0.001 nats a token over 2 completions: there is",
        ),
        (
            Estimate(-0.001, 0.0),
            "The reverse KL (sampling minus teacher) is -0.001 ± 0.000 nats a token over 2 completions: there is",
        ),
        (Estimate(0.040, 0.010), "there is something to learn"),  # 0.060 at two standard errors, and not 0
        (Estimate(0.300, 0.200), "that is not told apart from none, so measure more rows (--rows 8)."),
        (
            Estimate(-0.100, 0.200),
            "-0.100 ± 0.200 nats a token over 2 completions: that is not told apart",
        ),
        (Estimate(0.450, 0.030), "there is something to learn, 4.50 nats a completion."),
        (Estimate(2.5, 0.1), "compare what both sides read (`distillkit check`) before you train."),
        (
            Estimate(0.450, None),
            "0.450 nats a token over 2 completions: how far off that is cannot be said",
        ),
        (None, "No token was scored"),
    ],
)
def test_whether_there_is_anything_to_learn(usual: Diagnosis, mean: Estimate | None, said: str) -> None:
    assert said in worth(gap(usual, reverse_kl=mean))


@pytest.mark.parametrize(
    ("low", "said"),
    [
        (Estimate(0.2, 0.010), "(0.450 with teacher 'a', 0.200 with 'b')"),
        (
            Estimate(0.440, 0.010),
            "(by route the same within two standard errors: 0.450 with teacher 'a', 0.440 with 'b')",
        ),
        (
            Estimate(0.2, None),
            "(whether routes differ cannot be told of one row: 0.450 with teacher 'a', 0.200 with 'b')",
        ),
    ],
)
def test_which_route_has_the_larger_gap(usual: Diagnosis, low: Estimate, said: str) -> None:
    routes = {name: gap(usual, reverse_kl=mean).overall for name, mean in (("b", low), ("a", Estimate(0.450, 0.010)))}
    assert said in worth(replace(usual, routes=routes))


def test_what_the_teacher_s_own_prompt_makes_of_the_gap(usual: Diagnosis) -> None:
    prompt = PromptFigures(2, Estimate(0.5, 0.1), Estimate(0.2, 0.1), Estimate(0.3, 0.020))
    said = worth(gap(usual, prompt=prompt))
    assert (
        "; the teacher's own prompt makes 0.300 ± 0.020 nats of it, and behind the student's it would be 0.200." in said
    )
    some = worth(gap(usual, prompt=replace(prompt, completions=1)))
    assert "the teacher's own prompt, on the 1 where it has one, makes 0.300" in some


@pytest.mark.parametrize(
    ("thirds", "said"),
    [
        ((0.920, 0.050, 0.030), "92% of the |gap| is in the first third of the completions: shorter ones would do; a "),
        ((0.1, 0.2, 0.7), "70% of the |gap| is in the last third of the completions, so they must not be cut; a "),
        ((0.3, 0.4, 0.3), "30%, 40% and 30% of the |gap| are in the thirds of the completions; a "),
        ((None, None, None), "No token has a gap: the teacher gives each exactly the student's logprob."),
    ],
)
def test_where_the_gap_is(usual: Diagnosis, thirds: GapFigures, said: str) -> None:
    assert place(gap(usual, thirds=thirds)).startswith(said)


def test_a_gap_that_rounding_explains_is_nowhere_in_particular(usual: Diagnosis) -> None:
    assert place(gap(usual, absolute=3e-7)).startswith(
        "The mean |gap| is below 0.05 nats a token, which may be rounding"
    )
    assert "thirds of the completions" in place(gap(usual, absolute=NOTHING))


def test_one_is_not_many(usual: Diagnosis) -> None:
    one = diagnosis_of(measured([completion([-1.0])]), ["teacher"])
    assert "over 1 completion: " in worth(one)
    assert "after 1 token on average" in endings(one)


def test_a_share_of_less_than_a_percent_is_not_shown_as_none() -> None:
    scored = [completion([0] * 499 + [-6])]
    assert excluded(diagnosis_of(measured(scored), ["teacher"])).startswith("0.2% of the tokens")


SHORT, LONG = LengthFigures(8, 40.0, 38.0, 0.0), LengthFigures(8, 100.0, 90.0, 0.250)


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (
            LONG,
            SHORT,
            "75% of the student's completions end by themselves, after 100 tokens on average; of the teacher's own "
            "100% after 40, so the student writes 2.5 times as much.",
        ),
        (SHORT, LONG, "of the teacher's own 75% after 100, so the teacher writes 2.5 times as much."),
        (SHORT, SHORT, "of the teacher's own 100% after 40."),
        (SHORT, None, "; the teacher's own are not known, since its scorer cannot write any."),
        (replace(LONG, truncated=1.0), SHORT, "0% of the student's completions end by themselves"),
        (replace(LONG, truncated=1.0), SHORT, "; what ends a turn is never trained."),
        (None, None, "No completion was scored"),
    ],
)
def test_endings_and_lengths(
    usual: Diagnosis, student: LengthFigures | None, teacher: LengthFigures | None, said: str
) -> None:
    assert said in endings(lengths(usual, student, teacher))


def test_an_end_that_the_teacher_excludes(usual: Diagnosis) -> None:
    assert "at its end the teacher gives 13.1 nats less" in endings(gap(usual, end=13.1))
    assert "at its end" not in endings(gap(usual, end=4.9))


@pytest.mark.parametrize(
    ("student", "teacher", "said"),
    [
        (
            Estimate(0.9, 0.050),
            Estimate(0.450, 0.030),
            "The student's entropy is 0.900 ± 0.050 nats a token, the teacher's on its own completions 0.450 ± 0.030: "
            "the student still samples",
        ),
        (
            Estimate(0.3, 0.050),
            Estimate(1.2, 0.050),
            ": the student is the more certain one, and what it never samples ",
        ),
        (Estimate(0.9, 0.050), Estimate(1.0, 0.050), ": they do not differ by more than two standard errors."),
        (Estimate(0.9, None), Estimate(9.0, 0.050), ": whether they differ cannot be told of one row."),
        (Estimate(0.9, 0.050), Estimate(9.0, None), ": whether they differ cannot be told of one row."),
        (Estimate(0.9, 0.050), None, "; the teacher's is not known, its cross-entropy there is 8.50."),
        (
            None,
            None,
            "The student's entropy is not known, and sampling minus teacher is no reverse KL, since sampling is not ",
        ),
    ],
)
def test_which_side_is_more_certain(
    usual: Diagnosis, student: Estimate | None, teacher: Estimate | None, said: str
) -> None:
    assert said in certainty(entropy(usual, student=student, teacher=teacher))


def test_a_top_k_bounds_the_teacher_s_entropy(usual: Diagnosis) -> None:
    said = certainty(entropy(usual, teacher=None, teacher_topk=0.8, topk=20))
    assert "the teacher's is not known, at least 0.800 by its top-20, its cross-entropy there is 8.50." in said


def test_there_are_five_and_each_is_one(usual: Diagnosis) -> None:
    empty = diagnosis_of(measured([]), ["teacher"])
    for found in (usual, empty, entropy(usual, student=None), gap(usual, reverse_kl=None)):
        said = sentences(found)
        assert len(said) == 5
        assert all(each.endswith(".") and ". " not in each and each[0] == each[0].upper() for each in said)


def test_the_page_names_the_limits_of_the_rules() -> None:
    page = (Path(__file__).parents[3] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    rules = page.partition("## What the five sentences decide")[2].partition("##")[0]
    assert f"below {NOTHING:g} nats a token" in rules
    assert f"above {TOO_FAR:g} nats" in rules
    assert f"at least {MOST:.0%} of" in rules
    assert f"over {LARGE:g} nats" in rules
    assert f"a ratio from {LONGER:g} on" in rules
