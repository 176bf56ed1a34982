import math
from dataclasses import replace

import numpy as np
import pytest

from distillkit.diagnosis.figures_of import diagnosis_of
from distillkit.records import Score, ScoredRollout, ScoreRequest
from distillkit.testing import ByteTokenizer, make_scored
from distillkit.types import Prompts, Route, SamplingParams
from engine.diagnosis.completions import LOGPROB, completion, measured, written


def overall(scored, **over):
    return diagnosis_of(measured(scored, **over), ["teacher"]).overall


def test_the_gap_of_two_completions() -> None:
    figures = overall([completion([-1, -2, 1]), completion([-4], 2)])
    assert (figures.rows, figures.completions, figures.tokens) == (2, 2, 4)
    gap = figures.gap
    assert gap.reverse_kl is not None
    assert gap.reverse_kl.value == pytest.approx(6 / 4)
    # residuals of the rows: 2 - 3 * 1.5 = -2.5 and 4 - 1.5 = 2.5
    assert gap.reverse_kl.standard_error == pytest.approx(math.sqrt(2 * (2.5**2 + 2.5**2)) / 4)
    assert gap.per_completion == pytest.approx(3)
    assert gap.absolute == pytest.approx(2)


def test_tenths_and_thirds_hold_shares_of_the_summed_absolute_gap() -> None:
    advantages = [-3.0, 2, 0, 0, 0, 0, 0, 0, 0, -5]
    gap = overall([completion(advantages)]).gap
    assert [tenth.tokens for tenth in gap.tenths] == [1] * 10
    assert [tenth.reverse_kl for tenth in gap.tenths] == [-each for each in advantages]
    assert [tenth.share for tenth in gap.tenths] == pytest.approx([0.3, 0.2, *[0] * 7, 0.5])
    assert gap.thirds == pytest.approx((0.5, 0, 0.5))
    assert gap.top_tenth == pytest.approx(0.5)


def test_a_tenth_without_tokens_has_no_gap() -> None:
    gap = overall([completion([-1.0, -3.0])]).gap
    assert [tenth.tokens for tenth in gap.tenths] == [0, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    assert [tenth.reverse_kl for tenth in gap.tenths] == [None, None, 1, None, None, None, None, 3, None, None]
    assert [tenth.share for tenth in gap.tenths] == [0, 0, 0.25, 0, 0, 0, 0, 0.75, 0, 0]


def test_without_a_gap_there_are_no_shares() -> None:
    gap = overall([completion([0.0, 0.0])]).gap
    assert gap.reverse_kl is not None
    assert gap.reverse_kl.value == 0
    assert {tenth.share for tenth in gap.tenths} == {None}
    assert gap.thirds == (None, None, None)
    assert (gap.large, gap.large_share, gap.top_tenth, gap.tokens) == (0, None, None, ())


def test_large_advantages_of_both_signs_count_and_five_itself_does_not() -> None:
    gap = overall([completion([-6, 7, -5, -2])]).gap
    assert gap.large == pytest.approx(2 / 4)
    assert gap.large_share == pytest.approx(13 / 20)


def test_the_tokens_that_the_teacher_is_most_against_come_first() -> None:
    end = ByteTokenizer.turn_end
    gap = overall(
        [
            completion([-1, -1, -1, 4, -7], ids=[65, 65, 65, 66, end]),
            completion([-1, -0.5, -6], 2, ids=[65, 67, end]),
        ]
    ).gap
    assert [(token.text, token.count, token.large) for token in gap.tokens] == [
        ("<|im_end|>", 2, 2),
        ("A", 4, 0),
        ("C", 1, 0),
    ]
    assert [token.special for token in gap.tokens] == [True, False, False]
    assert [token.advantage for token in gap.tokens] == pytest.approx([-13, -4, -0.5])
    assert gap.tokens[0].mean_advantage == pytest.approx(-6.5)
    assert gap.end == pytest.approx(6.5)


def test_no_more_tokens_are_listed_than_one_can_read() -> None:
    assert len(overall([completion([-1.0] * 9, ids=list(range(65, 74)))]).gap.tokens) == 5


def test_what_was_cut_has_no_end() -> None:
    assert overall([completion([-1, -2], finish="length")]).gap.end is None


def test_a_stop_string_is_no_end_of_a_turn() -> None:
    end = ByteTokenizer.turn_end
    params = SamplingParams(8, stop=("e",), stop_ids=(end,))
    both = [completion([-1, -2], ids=[65, end]), completion([-1, -4], 2, ids=[65, 101])]
    asked = [replace(each.rollout, request=replace(each.rollout.request, params=params)) for each in both]
    scored = [make_scored(each, [LOGPROB - 1, LOGPROB - 2 * i]) for i, each in enumerate(asked, start=1)]
    assert overall(scored).gap.end == 2


def test_entropies_are_means_of_what_each_side_wrote() -> None:
    entropy = overall([completion([-1, -3]), completion([0, 0], 2)], own={"teacher": written([2, 4], -0.5)}).entropy
    assert entropy.student is not None
    assert (entropy.student.value, entropy.student.standard_error) == (-LOGPROB, 0)
    assert entropy.teacher is not None
    assert entropy.teacher.value == pytest.approx(0.5)
    assert entropy.teacher_cross is not None
    assert entropy.teacher_cross.value == pytest.approx(-LOGPROB + 1)
    assert (entropy.teacher_topk, entropy.topk) == (None, None)


def test_the_student_s_entropy_is_that_of_its_distribution() -> None:
    """Sampled from p, the mean of -log p is the entropy: four standard errors is the margin."""
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    generator = np.random.default_rng(0)
    scored = []
    for line in range(1, 201):
        ids = generator.choice(4, 20, p=probabilities)
        made = completion([0.0] * 20, line, ids=[65 + each for each in ids])
        rollout = replace(made.rollout, logprobs=np.log(probabilities[ids]))
        request = replace(made.scores["teacher"].request, rollout=rollout)
        scored.append(ScoredRollout(rollout, made.prompts, {"teacher": Score(request, rollout.logprobs, None)}))
    entropy = overall(scored).entropy.student
    assert entropy is not None
    true = float(-(probabilities * np.log(probabilities)).sum())
    assert abs(entropy.value - true) < 4 * entropy.error < 0.1


def test_of_another_distribution_no_entropy_is_claimed() -> None:
    entropy = overall([completion([-1.0])], untouched=False, own={"teacher": written([3])}).entropy
    assert (entropy.student, entropy.teacher) == (None, None)
    assert entropy.teacher_cross is not None


def with_topk(scored: ScoredRollout, probabilities: list[list[float]]) -> ScoredRollout:
    (teacher, score), *_ = scored.scores.items()
    arrays = {
        "topk_logprobs": np.log(np.array(probabilities), dtype=np.float32),
        "topk_ids": np.zeros((len(probabilities), len(probabilities[0])), np.int64),
    }
    return ScoredRollout(scored.rollout, scored.prompts, {teacher: replace(score, arrays=arrays)})


def test_the_entropy_of_a_top_k_takes_the_rest_as_one_outcome() -> None:
    scored = with_topk(completion([0.0, 0.0]), [[0.5, 0.25], [0.5, 0.5]])
    entropy = overall([scored]).entropy
    first, second = 0.5 * math.log(2) + 0.5 * math.log(4), math.log(2)
    assert entropy.teacher_topk == pytest.approx((first + second) / 2, abs=1e-6)
    assert entropy.topk == 2
    assert overall([scored, completion([0.0], 2)]).entropy.teacher_topk is None  # one score has none


def test_lengths_on_both_sides() -> None:
    scored = [completion([0] * 2), completion([0] * 3, 2), completion([0] * 10, 3, finish="length")]
    figures = overall(scored, own={"teacher": written([1, 2, 9])})
    student, teacher = figures.student_lengths, figures.teacher_lengths
    assert student is not None
    assert (student.completions, student.mean, student.median) == (3, 5, 3)
    assert student.truncated == pytest.approx(1 / 3)
    assert teacher is not None
    assert (teacher.mean, teacher.median, teacher.truncated) == (4, 2, 0)
    assert figures.student_prompt == figures.teacher_prompt == len(scored[0].rollout.request.prompt_ids)


def test_a_teacher_that_cannot_write_has_no_lengths_and_no_entropy() -> None:
    figures = overall([completion([0.0])])
    assert (figures.teacher_lengths, figures.entropy.teacher) == (None, None)


def test_each_route_has_figures_of_its_own() -> None:
    scored = [completion([-1.0], teacher="a"), completion([-3.0, -3.0], 2, teacher="b")]
    found = diagnosis_of(measured(scored, own={"a": written([5])}), ["a", "b", "idle"])
    means = {name: route.gap.reverse_kl and route.gap.reverse_kl.value for name, route in found.routes.items()}
    assert means == {"a": 1, "b": 3, "idle": None}
    assert found.overall.gap.reverse_kl is not None
    assert found.overall.gap.reverse_kl.value == pytest.approx(7 / 3)
    assert found.routes["a"].teacher_lengths is not None
    assert found.overall.teacher_lengths is None  # b's are not known, and a's are not all teachers'
    assert (found.routes["idle"].completions, found.routes["idle"].student_lengths) == (0, None)
    assert found.of("b").overall is found.routes["b"]


def test_a_row_of_two_teachers_counts_for_both() -> None:
    one = completion([-1.0], teacher="a")
    other = ScoreRequest(one.rollout, "b", one.rollout.request.prompt_ids)
    route = Prompts(one.prompts.row, Route({"a": 0.5, "b": 0.5}), one.prompts.student, {})
    both = ScoredRollout(one.rollout, route, {**one.scores, "b": Score(other, np.array([LOGPROB - 5]), None)})
    found = diagnosis_of(measured([both]), ["a", "b"])
    assert found.overall.gap.reverse_kl is not None
    assert found.overall.gap.reverse_kl.value == pytest.approx(3)
    assert found.overall.gap.reverse_kl.standard_error is None  # one row, whoever scored it
    assert (found.overall.rows, found.overall.completions) == (1, 2)
    assert found.overall.student_lengths is not None
    assert found.overall.student_lengths.completions == 1


def test_what_the_teacher_s_own_prompt_adds_is_measured_on_the_same_completions() -> None:
    scored = [completion([-2.0, -2.0]), completion([-4.0, -4.0], 2), completion([-9.0], 3)]
    under = [Score(each.scores["teacher"].request, np.full(2, LOGPROB - 1.0), None) for each in scored[:2]]
    prompt = overall(scored, student_prompt={"teacher": under}).gap.prompt
    assert prompt is not None
    assert prompt.completions == 2
    assert (prompt.own.value, prompt.student.value, prompt.difference.value) == (3, 1, 2)
    assert prompt.difference.standard_error == pytest.approx(1)
    assert overall(scored).gap.prompt is None


def test_the_token_with_the_most_large_advantages_is_not_the_one_with_the_largest_sum() -> None:
    gap = overall([completion([-4, -4, -4, -6, -6, 7, 0], ids=[65, 65, 65, 65, 66, 66, 67])]).gap
    assert gap.tokens[0].text == "A"
    assert gap.most_large is not None
    assert (gap.most_large.text, gap.most_large.count, gap.most_large.large) == ("B", 2, 2)
    assert overall([completion([-5, 4])]).gap.most_large is None
    assert overall([]).gap.most_large is None
