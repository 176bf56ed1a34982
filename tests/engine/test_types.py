"""Values on the data's journey: what fits together, and what their constructors refuse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from distillkit.arrays import frozen_array, logprob_array, token_ids
from distillkit.data.named_teachers import named
from distillkit.errors import AlignmentError
from distillkit.records import Score, ScoredRollout, ScoreRequest
from distillkit.testing import make_rollout, make_row, make_scored
from distillkit.training_data import Batch, Datum
from distillkit.types import Route, SampleKey, Teacher
from distillkit_builtin.losses.importance_sampling import ImportanceSampling


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
    with pytest.raises(AlignmentError, match=r"arrays\['topk_ids'\] has the shape \(2, 4\) for 3 tokens"):
        Score(request, logprob_array([-1, -1, -1]), None, arrays={"topk_ids": np.zeros((2, 4))})


def test_ids_that_were_not_echoed_are_not_proved() -> None:
    request = ScoreRequest(make_rollout([5]), "t", token_ids([1]))
    assert not Score(request, logprob_array([-1]), None).ids_proved
    assert Score(request, logprob_array([-1]), token_ids([5])).ids_proved


def test_teachers_of_a_run_are_never_called_the_same() -> None:
    alone = Teacher("a/b c", "m")
    assert (alone.shown, alone.slug) == ("a/b c", "a-b-c")
    slashed, dashed = named([alone, Teacher("a-b c", "m")])
    assert slashed.slug != dashed.slug
    assert slashed.slug.startswith("a-b-c-")
    assert slashed == alone  # what it is called does not make it another teacher


def test_a_teacher_is_called_by_the_last_part_of_its_model_and_known_by_all_of_it() -> None:
    teacher = Teacher("Qwen/Qwen3-1.7B", "Qwen/Qwen3-1.7B")
    assert (teacher.name, teacher.shown, teacher.slug) == ("Qwen/Qwen3-1.7B", "Qwen3-1.7B", "Qwen3-1.7B")


def datum(inputs: Mapping[str, object], ids: Sequence[int] = (5, 6, 7)) -> Datum:
    return Datum(SampleKey("3-cafe", 0, 1), token_ids([1]), token_ids(ids), inputs)  # type: ignore[arg-type]


def test_a_datum_refuses_inputs_of_another_length_and_names_them() -> None:
    for values in (np.zeros(4), np.zeros((2, 3)), np.float32(1.0)):
        with pytest.raises(
            AlignmentError, match=r"row 3-cafe, epoch 0, .*: inputs\['advantages'\] has .* for 3 tokens"
        ):
            datum({"weights": np.zeros(3), "advantages": values})
    assert datum({"topk": np.zeros((3, 20))}).inputs["topk"].shape == (3, 20)


def test_inputs_are_numbers() -> None:
    with pytest.raises(AlignmentError, match=r"inputs\['names'\] is of <U1, not of numbers"):
        datum({"names": np.array(["a", "b", "c"])})


def test_token_ids_are_whole_and_in_one_line() -> None:
    with pytest.raises(AlignmentError, match="token ids are whole numbers, and float64 with fractions was given"):
        token_ids([1.5])
    with pytest.raises(AlignmentError, match=r"Datum.response_ids has the shape \(1, 3\)"):
        datum({}, [[5, 6, 7]])  # type: ignore[list-item]
    with pytest.raises(AlignmentError, match="fractions"):
        token_ids([float("nan")])
    assert token_ids([]).dtype == np.int64
    assert token_ids([2.0]).tolist() == [2]


def test_two_losses_that_are_misaligned_by_one_token_each_are_refused_before_they_train() -> None:
    """One too long for one completion and one too short for the next: laid end to end, the lengths are right."""

    class Shifted(ImportanceSampling):
        def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
            made = super().batch(scored)
            inputs = {name: np.concatenate([one.inputs[name] for one in made.datums]) for name in made.datums[0].inputs}
            cut = len(made.datums[0].response_ids) + 1
            parts = ({name: array[:cut] for name, array in inputs.items()}, {n: a[cut:] for n, a in inputs.items()})
            return replace(made, datums=[replace(d, inputs=p) for d, p in zip(made.datums, parts, strict=True)])

    scored = [
        make_scored(make_rollout([5, 6, 7], row=row), [-1.0] * 3, row=row) for row in (make_row("a"), make_row("b"))
    ]
    with pytest.raises(AlignmentError, match=r"has the shape \(4,\) for 3 tokens"):
        Shifted().batch(scored)


def test_a_scored_rollout_holds_scores_of_itself_alone() -> None:
    one, other = (make_scored(make_rollout([5], sample=i), [-2.0]) for i in range(2))
    with pytest.raises(AlignmentError, match="by teacher 'teacher' is not one of it"):
        replace(one, scores=other.scores)
    with pytest.raises(AlignmentError, match=r"scored by \['else'\], its route is teacher"):
        replace(one, scores={"else": one.scores["teacher"]})
    elsewhere = replace(one.prompts, route=Route.to("else"))
    with pytest.raises(AlignmentError, match="is not one of it by teacher 'else'"):
        replace(one, prompts=elsewhere, scores={"else": one.scores["teacher"]})
