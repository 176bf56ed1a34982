from dataclasses import replace

import numpy as np
import pytest
from helpers.table_completions import completion_of, log_softmax, mixture_of
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit import AlignmentError, Array, Score
from distillkit.testing import complete_batch
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.teacher_support import first_occurrences, support

WEIGHTS = (3.0, 1.0)


def tables(seed: int, teachers: int = 2) -> tuple[Array, list[Array]]:
    made_up = np.random.default_rng(seed)
    return made_up.standard_normal((5, 9)), [made_up.standard_normal((5, 9)) for _ in range(teachers)]


def best(table: Array, k: int) -> set[int]:
    return {int(index) for index in np.argsort(-table)[:k]}


@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize("which", ["student_topk", "union"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 4))
def test_each_id_of_the_support_is_there_once_with_the_mixtures_logprob(
    teachers: int, which: str, seed: int, k: int
) -> None:
    student, given_teachers = tables(seed, teachers)
    loss = Divergence(support=which, k=k)
    found = support(completion_of(loss, student, given_teachers, WEIGHTS), which, k)
    mixture = mixture_of(given_teachers, WEIGHTS)
    for position, ids in enumerate(found["support_ids"]):
        wanted = best(student[position], k)
        if which == "union":
            wanted = wanted.union(*(best(table[position], k) for table in given_teachers))
        kept = ids[ids >= 0]
        assert sorted(kept) == sorted(wanted)
        logprobs = found["support_logprobs"][position]
        np.testing.assert_allclose(logprobs[ids >= 0], mixture[position, kept], rtol=1e-12)
        assert not logprobs[ids < 0].any()


def test_of_more_than_it_wants_a_loss_takes_its_own_k() -> None:
    student, teachers = tables(1, 1)
    wide = completion_of(Divergence(support="union", k=7), student, teachers)
    found = support(wide, "union", 2)
    for position, ids in enumerate(found["support_ids"]):
        assert set(ids[ids >= 0].tolist()) == best(student[position], 2) | best(teachers[0][position], 2)


def test_an_id_that_no_teacher_can_give_is_left_to_the_tail() -> None:
    student, (teacher,) = tables(2, 1)
    loss = Divergence(support="student_topk", k=3)
    second = np.argsort(-student[0])[1]
    teacher[0, second] = -np.inf
    inputs = loss.inputs(completion_of(loss, student, [teacher]))
    assert (inputs["support_ids"][0] == -1).sum() == 1
    assert second not in inputs["support_ids"][0]
    assert np.isfinite(inputs["support_logprobs"]).all()


def test_teachers_that_were_not_asked_for_each_others_ids_are_refused() -> None:
    student, teachers = tables(3)
    loss = Divergence(support="union", k=3)
    completion = completion_of(loss, student, teachers, WEIGHTS)
    scores = {
        name: Score(
            replace(score.request, at_ids=None),
            score.logprobs,
            None,
            arrays={key: array for key, array in score.arrays.items() if key != "at_logprobs"},
        )
        for name, score in completion.scores.items()
    }
    with pytest.raises(AlignmentError, match=r"score of .* has no logprob of id \d at token \d.*must give at_ids"):
        loss.inputs(replace(completion, scores=scores))


def test_rows_of_one_and_of_several_teachers_stand_in_one_batch() -> None:
    loss = Divergence(support="union", k=3)
    student, teachers = tables(4)
    scored = [completion_of(loss, student, teachers[:count], WEIGHTS) for count in (1, 2)]
    alone = [complete_batch(loss, [each]).datums[0].inputs for each in scored]
    both = [datum.inputs for datum in complete_batch(loss, scored).datums]
    widest = alone[1]["support_ids"].shape[1]
    assert alone[0]["support_ids"].shape[1] < widest
    for before, after in zip(alone, both, strict=True):
        width = before["support_ids"].shape[1]
        assert after["support_ids"].shape == after["support_logprobs"].shape == (5, widest)
        np.testing.assert_array_equal(after["support_ids"][:, :width], before["support_ids"])
        assert (after["support_ids"][:, width:] == -1).all()


def test_what_stands_behind_a_mask_is_not_looked_at() -> None:
    loss = Divergence(support="union", k=2)
    student, teachers = tables(6)
    completion = completion_of(loss, student, teachers, WEIGHTS)
    mask = np.array([True, False, True, True, True])
    rollout = replace(completion.rollout, mask=mask)
    scores = {}
    for name, score in completion.scores.items():
        arrays = {key: array.copy() for key, array in score.arrays.items()}
        arrays["at_logprobs"][1] = np.nan
        arrays["topk_logprobs"][1] = np.nan
        scores[name] = Score(replace(score.request, rollout=rollout), score.logprobs, None, arrays=arrays)
    inputs = complete_batch(loss, [replace(completion, rollout=rollout, scores=scores)]).datums[0].inputs
    wanted = complete_batch(loss, [completion]).datums[0].inputs
    for name in ("support_ids", "support_logprobs"):
        assert not inputs[name][1].any()
        np.testing.assert_array_equal(inputs[name][mask], wanted[name][mask])


def test_first_occurrences_are_by_position() -> None:
    first, of_each = first_occurrences(np.array([[4, 2, 4, 2], [2, 2, -1, -1]]))
    assert first.tolist() == [[True, True, False, False], [True, False, True, False]]
    assert of_each.tolist() == [[0, 1, 0, 1], [4, 4, 6, 6]]


def test_a_teacher_of_weight_zero_is_not_asked() -> None:
    loss = Divergence(support="student_topk", k=3)
    student, teachers = tables(8)
    found = support(completion_of(loss, student, teachers, (1.0, 0.0)), "student_topk", 3)
    wanted = np.take_along_axis(log_softmax(teachers[0]), found["support_ids"], axis=1)
    np.testing.assert_allclose(found["support_logprobs"], wanted, rtol=1e-12)
