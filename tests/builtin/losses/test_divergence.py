"""Loss `divergence`: values and gradients are those of a float64 reference, and which options go together."""

import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from helpers.table_completions import loss_at, minimised, mixture_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from builtin.losses.divergence_cases import DIRECTIONS, SEEDS, SUPPORTS, ids_of, logits, made, named, reference
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.testing import check_plugin
from distillkit_builtin.losses.divergence import Divergence

FORMATS = {
    # What float32 cannot hold is little here: logprobs are not far from 0, and a tail is no small part.
    np.float32: {"spread": 1.0, "rtol": 1e-6, "atol": 1e-6},
    np.float64: {"spread": 2.0, "rtol": 1e-7, "atol": 1e-9},
}


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
@settings(max_examples=10)
@given(seed=SEEDS, support=st.sampled_from(SUPPORTS), tail=st.booleans())
def test_values_and_gradients_equal_a_float64_reference(
    options: Mapping[str, Any], dtype: type[object], support: str, tail: bool, seed: int
) -> None:
    loss, (spread, rtol, atol) = made(support, tail=tail or support == "full", **options), FORMATS[dtype].values()
    student, teacher = logits(seed, spread, dtype=dtype)
    values, gradients = loss_at(loss, student, [teacher])
    assert values.dtype == dtype
    for position, (s, t) in enumerate(zip(student.astype(np.float64), teacher.astype(np.float64), strict=True)):
        wanted = reference(loss, s, t, ids_of(loss, s, [t]))
        np.testing.assert_allclose(values[position], wanted[0], rtol=rtol, atol=atol)
        np.testing.assert_allclose(gradients[position], wanted[1], rtol=rtol, atol=atol)
        assert values[position] > -1e-6 or not loss.tail


@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
@settings(max_examples=6)
@given(seed=SEEDS, support=st.sampled_from(["full", "student_topk", "union"]))
def test_several_teachers_are_one_mixture(options: Mapping[str, Any], support: str, seed: int) -> None:
    loss, weights = made(support, **options), (3.0, 1.0)
    student, *teachers = logits(seed, 2.0, 3)
    values, gradients = loss_at(loss, student, teachers, weights)
    mixture = mixture_of(teachers, weights)
    for position, s in enumerate(student):
        ids = ids_of(loss, s, [table[position] for table in teachers])
        value, gradient = reference(loss, s, mixture[position], ids)
        np.testing.assert_allclose(values[position], value, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(gradients[position], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("support", SUPPORTS[1:])
@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
@settings(max_examples=2)
@given(seed=SEEDS)
def test_k_of_the_whole_vocabulary_is_full(options: Mapping[str, Any], support: str, seed: int) -> None:
    student, teacher = logits(seed, 1.0, dtype=np.float32)
    found, wanted = (loss_at(made(each, student.shape[1], **options), student, [teacher]) for each in (support, "full"))
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
def test_it_minimises_what_it_says(options: Mapping[str, Any], support: str) -> None:
    student, teacher = logits(7, 1.5)
    loss = made(support, **options)
    for found, wanted in zip(loss_at(loss, student, [teacher]), minimised(loss, student, [teacher]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
def test_a_temperature_is_of_both_sides(options: Mapping[str, Any], temperature: float) -> None:
    student, teacher = logits(3, 1.5)
    softened = loss_at(Divergence(temperature=temperature, **options), student, [teacher])
    plain = loss_at(Divergence(**options), student / temperature, [teacher / temperature])
    np.testing.assert_allclose(softened[0], plain[0], rtol=1e-9)
    np.testing.assert_allclose(softened[1], plain[1] / temperature, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("support", SUPPORTS)
@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
def test_a_teacher_equal_to_the_student_gives_zero(options: Mapping[str, Any], support: str) -> None:
    student, _ = logits(1, 4.0, dtype=np.float32)
    values, gradients = loss_at(made(support, **options), student, [student])
    np.testing.assert_allclose(values, 0, atol=1e-6)
    np.testing.assert_allclose(gradients, 0, atol=1e-6)


@pytest.mark.parametrize("support", SUPPORTS)
def test_a_position_depends_on_itself_alone(support: str) -> None:
    loss, (student, teacher) = made(support), logits(5, 2.0)
    order = [3, 0, 4, 1, 2]
    values, gradients = loss_at(loss, student, [teacher])
    permuted = loss_at(loss, student[order], [teacher[order]])
    np.testing.assert_array_equal(permuted[0], values[order])
    np.testing.assert_array_equal(permuted[1], gradients[order])


@pytest.mark.parametrize(
    "loss",
    [*(Divergence(**options) for options in DIRECTIONS), *(made(support) for support in SUPPORTS[1:])],
    ids=lambda loss: f"{loss.direction} {loss.beta} {loss.support}",
)
def test_it_keeps_the_contract_and_is_proven_and_travels_to_other_ranks(loss: Divergence) -> None:
    check_plugin(loss)  # proves it, too: the expected gradient is that of what it minimises
    pickle.loads(pickle.dumps((token_loss_of(loss), loss.minimises())))


def test_needs_and_reads_follow_from_the_support() -> None:
    loss = {support: made(support, 4) for support in SUPPORTS}
    assert {name: dict(each.needs()) for name, each in loss.items()} == {
        "full": {"full": 1},
        "teacher_topk": {"topk": 4},
        "student_topk": {"at_ids": 4},
        "union": {"topk": 4, "at_ids": 4},
    }
    assert [dict(each.sampler_needs()) for each in loss.values()] == [{}, {}, {"topk": 4}, {"topk": 4}]
    assert [set(each.reads()) for each in loss.values()] == [{"distribution"}, {"at_ids"}, {"at_ids"}, {"at_ids"}]
    assert [each.max_teachers() for each in loss.values()] == [None, 1, None, None]
    assert made("teacher_topk", tail=False).minimises() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support": "union"}, "support union needs k: a vLLM server gives 20"),
        ({"k": 5}, "k counts with a top-K support alone"),
        ({"tail": False}, "support full has no tail"),
        ({"beta": 0.5}, "direction reverse has no beta"),
        ({"direction": "skew", "beta": 1.0}, "compares the student with itself"),
        ({"support": "teacher_topk", "k": 5, "temperature": 2.0}, "a temperature needs whole distributions"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"direction": "jsd", "beta": 1.5}, "less than or equal to 1"),
    ],
)
def test_an_option_without_effect_or_sense_is_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Divergence(**options)
