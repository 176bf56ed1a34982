"""Verdicts as a function of figures alone: thresholds, and numbers at which a rule must not trip."""

from dataclasses import replace

import pytest

from distillkit.probe.figures import Disagreement, Gap, ProbeFigures, TeacherFigures, as_json
from distillkit.probe.sampling_test import untouched_sampling
from distillkit.probe.verdicts import verdicts_of

NONE = Gap(0, float("nan"), float("nan"))
STEADY = Disagreement(100, 0.0, 0.0)


def gap(mean: float, tokens: int = 100) -> Gap:
    return Gap(tokens, mean, abs(mean))


def teacher(**over: object) -> TeacherFigures:
    values: dict[str, object] = {
        "teacher": "t",
        "completions": 16,
        "failed": 0,
        "failure": None,
        "ended": 16,
        "gap": gap(-0.3),
        "first": gap(-0.3),
        "end": gap(-0.3, 16),
        "between": gap(-0.3),
        "end_tokens": ("<|im_end|>",),
        "asked_again": {"again": STEADY, "reversed": STEADY, "alone": STEADY},
    }
    return TeacherFigures(**{**values, **over})  # type: ignore[arg-type]  # the dataclass checks the names


def figures(*teachers: TeacherFigures, **over: object) -> ProbeFigures:
    values: dict[str, object] = {
        "rows": 16,
        "completions": 16,
        "sampled_tokens": 100,
        "scored_tokens": 100,
        "failed": 0,
        "failure": None,
        "ended": 16,
        "max_completion_tokens": 64,
        "teachers": teachers,
        "not_asked": (),
        "sampling": untouched_sampling([]),
        "run_samples_otherwise": False,
    }
    return ProbeFigures(**{**values, **over})  # type: ignore[arg-type]  # the dataclass checks the names


def found(*teachers: TeacherFigures, **over: object) -> list[tuple[str, str]]:
    return [(verdict.level, verdict.what) for verdict in verdicts_of(figures(*teachers, **over))]


OK = [("ok", "nothing")]


@pytest.mark.parametrize(
    ("mean_gap", "apart", "largest", "expected"),
    [
        (0.0, 0.0, 0.0, "ok"),  # the teacher is the student
        (1e-5, 1e-5, 1e-4, "ok"),  # it is, in float32
        (0.01, 0.01, 0.2, "ok"),  # it is, in bfloat16
        (0.6, 0.059, 0.5, "ok"),  # below a tenth
        (0.6, 0.061, 0.5, "warn"),  # above
        (0.05, 0.09, 0.5, "warn"),  # above the gap, and rounding explains it
        (0.05, 0.11, 0.5, "refuse"),  # above both
        (0.3, 0.29, 0.5, "warn"),
        (0.3, 0.31, 0.5, "refuse"),
        (0.3, 0.001, 2.1, "warn"),  # few tokens, and far
    ],
)
@pytest.mark.parametrize("how", ["again", "reversed", "alone", "replica http://b"])
def test_a_difference_is_measured_by_the_gap_and_never_by_less_than_rounding(
    mean_gap: float, apart: float, largest: float, expected: str, how: str
) -> None:
    asked = teacher(gap=gap(-mean_gap), asked_again={"again": STEADY, how: Disagreement(100, apart, largest)})
    assert found(asked) == (OK if expected == "ok" else [(expected, how.partition(" ")[0])])


@pytest.mark.parametrize("how", ["alone", "replica http://b"])
def test_rounding_in_other_batches_is_no_fault_and_the_same_batch_again_is_not_rounded_otherwise(how: str) -> None:
    rounded = Disagreement(100, 0.041, 0.37)  # as measured, in bfloat16
    assert found(teacher(gap=gap(-0.04), asked_again={"again": STEADY, how: rounded})) == OK
    assert found(teacher(gap=gap(-0.04), asked_again={"again": rounded})) == [("warn", "again")]


@pytest.mark.parametrize(
    ("mean_gap", "apart", "weights", "said"),
    [
        (0.9, 0.057, None, "differences are too small to matter beside the gap (largest mean 0.057 of 0.9)"),
        (0.04, 0.041, None, "differences are no larger than rounding makes them (largest mean 0.041 of 0.04)"),
        (0.9, 1e-5, None, "nothing is wrong with what was measured"),
        (0.9, 0.0, "of none", "nothing is wrong with what was measured"),
        (
            0.9,
            0.0,
            Disagreement(9, 0.02, 0.02),
            "the sampler's logprobs are 0.02 nats a token from the student's own, which train.warn_logprob_mismatch "
            "allows",
        ),
    ],
)
def test_the_last_line_does_not_deny_what_the_table_shows(
    mean_gap: float, apart: float, weights: Disagreement | str | None, said: str
) -> None:
    asked = teacher(gap=gap(mean_gap), asked_again={"again": STEADY, "alone": Disagreement(9, apart, apart)})
    (verdict,) = verdicts_of(figures(asked, weights=weights))
    assert (verdict.level, verdict.what, verdict.message) == ("ok", "nothing", said)


def test_where_no_most_of_the_replicas_agree_none_is_blamed() -> None:
    far = Disagreement(100, 0.3, 1.0)
    asked = teacher(
        asked_again={"again": STEADY, "replica b": STEADY, "replica c": far, "replica d": far}, compared_with="a"
    )
    messages = [verdict.message for verdict in verdicts_of(figures(asked))]
    assert len(messages) == 2
    assert all("which of them is right is not known" in message and "than at a: " in message for message in messages)


def test_an_order_that_matters_one_by_one_is_not_mended_by_asking_one_by_one() -> None:
    asked = teacher(asked_again={"again": STEADY, "reversed": Disagreement(100, 0.3, 1.0)})
    (verdict,) = verdicts_of(figures(asked))
    assert "concurrency" not in verdict.message
    assert "prefix cache" in verdict.message


def test_what_a_teacher_does_when_asked_again_in_the_same_way_is_no_fault_of_order_or_replicas() -> None:
    noise = Disagreement(100, 0.2, 1.0)
    ways = {"again": noise, "reversed": noise, "alone": noise, "replica b": Disagreement(100, 0.5, 1.0)}
    assert found(teacher(asked_again=ways)) == [("refuse", "replica"), ("warn", "again")]


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"end": gap(-13.0, 16)}, "turn-end"),
        ({"end": gap(-13.0, 2)}, None),  # too few to speak of
        ({"end": gap(-4.9, 16)}, None),
        ({"end": NONE}, None),
        ({"end": gap(-13.0, 16), "between": NONE}, "turn-end"),
        ({"first": gap(-6.0), "prompts_end_alike": False}, "start"),
        ({"first": gap(-6.0)}, None),  # a teacher with another style, or a prompt of its own
        ({"first": gap(-1.9), "prompts_end_alike": False}, None),
        ({"first": gap(-6.0), "between": gap(-2.0), "prompts_end_alike": False}, None),  # it disagrees everywhere
        ({"first": gap(-6.0), "between": NONE, "prompts_end_alike": False}, None),  # there is nothing behind them
        ({"gap": gap(-5.1)}, "far"),
        ({"gap": gap(5.1)}, "far"),
        ({"gap": gap(-4.9)}, None),
    ],
)
def test_where_the_gap_is(over: dict[str, object], expected: str | None) -> None:
    assert found(teacher(**over)) == ([("warn", expected)] if expected else OK)


@pytest.mark.parametrize(
    ("completions", "ended", "expected"), [(8, 0, "refuse"), (7, 0, "warn"), (16, 1, None), (1, 1, None)]
)
def test_no_ending_is_a_verdict_once_there_are_enough(completions: int, ended: int, expected: str | None) -> None:
    level = found(completions=completions, ended=ended)
    assert level == ([(expected, "endings")] if expected else OK)


def test_the_worst_comes_first_and_each_says_what_to_do() -> None:
    asked = teacher(failed=1, failure="away", asked_again={"again": Disagreement(100, 9.0, 9.0)}, gap=gap(-6.0))
    verdicts = verdicts_of(figures(asked, ended=0, not_asked=("u",), sampling="they add up to 1.30"))
    order = ["refuse", "refuse", "refuse", "warn", "warn", "warn"]
    assert [verdict.level for verdict in verdicts] == order
    assert all(len(verdict.message) > 40 for verdict in verdicts if verdict.what != "failures")
    assert not any("{" in verdict.message for verdict in verdicts)


def test_figures_are_json_with_null_for_what_is_not_known() -> None:
    made = as_json(figures(teacher(end=NONE)))
    assert isinstance(made, dict)
    assert made["teachers"][0]["end"] == {"tokens": 0, "mean": None, "mean_abs": None}  # type: ignore[index, call-overload]
    assert as_json(replace(figures(), sampling="of none"))["sampling"] == "of none"  # type: ignore[index, call-overload]
