import numpy as np
import pytest

from distillkit.arrays import frozen_array, logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import make_rollout, make_scored, make_teacher
from distillkit.types import Teacher


def test_arrays_are_read_only_copies() -> None:
    source = np.array([1, 2, 3])
    ids = token_ids(source)
    source[0] = 9
    assert ids.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 5
    assert frozen_array(ids, np.int64) is ids


@pytest.mark.parametrize("logprobs", [[-1.0], [-1.0, -2.0, -3.0]])
def test_a_rollout_refuses_another_number_of_logprobs(logprobs: list[float]) -> None:
    with pytest.raises(AlignmentError, match=r"for 2 tokens"):
        make_rollout([5, 6], logprobs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_logprob_that_is_no_number_is_refused_with_its_token(bad: float) -> None:
    with pytest.raises(AlignmentError, match="token 1 is"):
        make_rollout([5, 6], [-1.0, bad])


def test_an_empty_rollout_is_refused() -> None:
    with pytest.raises(AlignmentError, match="yield a Failure"):
        make_rollout([])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 1000])
def test_without_a_mask_every_token_is_active(count: int) -> None:
    rollout = make_rollout([5] * count)
    assert rollout.active.tolist() == [True] * count
    assert rollout.active_count == count
    assert rollout.at_active(rollout.logprobs) is rollout.logprobs
    with pytest.raises(ValueError, match="read-only"):
        rollout.active[0] = False


def test_a_mask_picks_the_active_tokens() -> None:
    rollout = make_rollout([5, 6, 7], [-1.0, -2.0, -3.0], mask=[True, False, True])
    assert rollout.active_count == 2
    assert rollout.at_active(rollout.logprobs).tolist() == [-1.0, -3.0]


def test_masked_positions_may_be_nan() -> None:
    rollout = make_rollout([5, 6, 7], mask=[True, False, True])
    assert np.isnan(rollout.logprobs[1])
    assert rollout.active.tolist() == [True, False, True]


def test_a_score_refuses_other_ids_than_the_sampled_ones() -> None:
    request = ScoreRequest(make_rollout([5, 6, 7]), "t", token_ids([1]))
    with pytest.raises(AlignmentError, match="token 2 is id 8, not the sampled 7"):
        Score(request, logprob_array([-1, -1, -1]), token_ids([5, 6, 8]))
    with pytest.raises(AlignmentError, match="2 ids came back for 3 tokens"):
        Score(request, logprob_array([-1, -1, -1]), token_ids([5, 6]))
    with pytest.raises(AlignmentError, match="2 logprobs"):
        Score(request, logprob_array([-1, -1]), None)
    with pytest.raises(AlignmentError, match="array 'topk_ids' has 2 rows for 3 tokens"):
        Score(request, logprob_array([-1, -1, -1]), None, arrays={"topk_ids": np.zeros((2, 4))})


def test_ids_that_were_not_echoed_are_not_proved() -> None:
    request = ScoreRequest(make_rollout([5]), "t", token_ids([1]))
    assert not Score(request, logprob_array([-1]), None).ids_proved
    assert Score(request, logprob_array([-1]), token_ids([5])).ids_proved


def test_slugs_are_safe_and_never_clash() -> None:
    slashed, dashed = Teacher("a/b c", "m"), Teacher("a-b c", "m")
    assert slashed.slug.startswith("a-b-c-")
    assert slashed.slug != dashed.slug
    assert len(slashed.slug.rpartition("-")[2]) == 10


def test_values_are_frozen() -> None:
    scored = make_scored(make_rollout([5]), [-2.0])
    with pytest.raises(AttributeError):
        scored.rollout = make_rollout([6])  # type: ignore[misc]
    with pytest.raises(AttributeError):
        make_teacher().name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Failure(scored.rollout.request, "why").reason = "else"  # type: ignore[misc]
