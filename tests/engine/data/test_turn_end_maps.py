from typing import Any

import numpy as np
import pytest

from distillkit.arrays import token_ids
from distillkit.data.turn_end_maps import TurnEndMap, TurnEndMaps
from distillkit.errors import AlignmentError
from distillkit.records import Score
from distillkit.testing import make_rollout
from distillkit.types import SamplingParams

A, B, A2 = 0, 2, 1
BOTH, ONE_WAY, TWO_ENDS = TurnEndMap((A,), B), TurnEndMap((A,), B, both_ways=False), TurnEndMap((A, A2), B)


@pytest.mark.parametrize(
    ("ends", "student", "teacher"),
    [
        (BOTH, [7, 8, A], [7, 8, B]),
        (BOTH, [A], [B]),
        (BOTH, [7, 8], [7, 8]),  # cut at the limit
        (BOTH, [7, B, 8, A], [7, A, 8, B]),  # the teacher's end ends nothing for the student
        (BOTH, [7, B], [7, A]),
        (ONE_WAY, [7, A], [7, B]),
        (ONE_WAY, [7, B], [7, B]),  # it ended the completion
        (TWO_ENDS, [7, A2], [7, B]),
        (TWO_ENDS, [B, A], [A, B]),
    ],
)
def test_the_two_ends_change_places_in_what_a_teacher_reads(ends: TurnEndMap, student: Any, teacher: Any) -> None:
    rollout = make_rollout(student)
    request = TurnEndMaps({"t": ends}).request(rollout, "t", token_ids([5, 6]))
    assert request.token_ids.tolist() == teacher
    assert request.rollout is rollout
    assert rollout.token_ids.tolist() == student


def test_other_teachers_read_what_was_sampled() -> None:
    rollout = make_rollout([7, A])
    request = TurnEndMaps({"t": BOTH}).request(rollout, "other", token_ids([5]))
    assert request.token_ids is rollout.token_ids
    assert request.read_ids is None


def test_a_score_of_the_ids_that_were_sampled_is_refused() -> None:
    request = TurnEndMaps({"t": BOTH}).request(make_rollout([7, A]), "t", token_ids([5]))
    values = np.array([-1.0, -2.0], np.float32)
    assert Score(request, values, token_ids([7, B])).logprobs.tolist() == [-1.0, -2.0]
    with pytest.raises(AlignmentError, match="token 1 is id 0, not the sampled 2"):
        Score(request, values, token_ids([7, A]))


@pytest.mark.parametrize(("ends", "topk"), [(BOTH, [[7, A], [A, B]]), (ONE_WAY, [[7, B], [B, A]])])
def test_the_top_k_of_a_score_come_back_in_the_students_ids(ends: TurnEndMap, topk: Any) -> None:
    """At every position: where the teacher would end, the student is to end by its own token."""
    maps = TurnEndMaps({"t": ends})
    arrays = {"topk_ids": np.array([[7, B], [B, A]]), "topk_logprobs": np.array([[-0.1, -2.0], [-0.2, -3.0]])}
    request = maps.request(make_rollout([7, A]), "t", token_ids([5]))
    score = Score(request, np.array([-0.1, -0.2], np.float32), token_ids([7, B]), arrays=arrays)
    told = maps.score(score)
    assert told.arrays["topk_ids"].tolist() == topk
    assert told.arrays["topk_logprobs"].tolist() == arrays["topk_logprobs"].tolist()
    assert told.echoed_ids is not None
    assert told.echoed_ids.tolist() == [7, B]
    assert TurnEndMaps().score(score) is score


def test_what_a_teacher_samples_ends_by_its_own_end_and_comes_back_in_the_students_ids() -> None:
    maps = TurnEndMaps({"t": BOTH})
    params = SamplingParams(8, stop_ids=(A,))
    assert maps.params(params, "t").stop_ids == (B, A)
    assert maps.params(params, "other") is params
    written = maps.rollout(make_rollout([7, B]), "t")
    assert written.token_ids.tolist() == [7, A]
    assert maps.request(written, "t", token_ids([5])).token_ids.tolist() == [7, B]
    assert maps.rollout(written, "other") is written
