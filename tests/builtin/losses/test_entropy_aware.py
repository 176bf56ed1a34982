import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from helpers import reference_divergence
from helpers.table_completions import log_softmax, loss_at, minimised
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distillkit import Array
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.testing import check_plugin, make_context
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.entropy_aware import EntropyAware

OPTIONS: list[Mapping[str, Any]] = [{}, {"support": "teacher_topk", "k": 4}]


def tables(seed: int, spread: float = 1.5) -> tuple[Array, Array]:
    made_up = np.random.default_rng(seed)
    return spread * made_up.standard_normal((6, 15)), spread * made_up.standard_normal((6, 15))


@pytest.mark.parametrize("options", OPTIONS, ids=["full", "top-k"])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.floats(0, 3), weight=st.floats(0.1, 4))
def test_forward_kl_is_added_where_the_teacher_is_uncertain(
    options: Mapping[str, Any], seed: int, threshold: float, weight: float
) -> None:
    student, teacher = tables(seed)
    loss = EntropyAware(threshold=threshold, forward_weight=weight, **options)
    values, gradients = loss_at(loss, student, [teacher])
    for position, (s, t) in enumerate(zip(student, teacher, strict=True)):
        ids = None if loss.k is None else np.argsort(-t)[: loss.k].tolist()
        outcomes = np.exp(log_softmax(t))
        if ids is not None:
            outcomes = np.append(outcomes[ids], 1 - outcomes[ids].sum())
        uncertain = -(outcomes * np.log(outcomes)).sum() > threshold
        reverse, slope = reference_divergence.divergence("reverse", 0, s, t, ids)
        forward, forward_slope = reference_divergence.divergence("forward", 0, s, t, ids)
        np.testing.assert_allclose(values[position], reverse + weight * uncertain * forward, atol=1e-9)
        np.testing.assert_allclose(gradients[position], slope + weight * uncertain * forward_slope, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS, ids=["full", "top-k"])
def test_above_every_entropy_it_is_the_reverse_kl(options: Mapping[str, Any]) -> None:
    student, teacher = tables(3)
    loss, reverse = EntropyAware(threshold=20, **options), Divergence(**options)
    for found, wanted in zip(loss_at(loss, student, [teacher]), loss_at(reverse, student, [teacher]), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("options", OPTIONS, ids=["full", "top-k"])
def test_it_minimises_what_it_says_and_nothing_where_both_are_equal(options: Mapping[str, Any]) -> None:
    student, teacher = tables(5)
    loss = EntropyAware(**options)
    for found, wanted in zip(loss_at(loss, student, [teacher]), minimised(loss, student, [teacher]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    for found in loss_at(loss, student, [student]):
        np.testing.assert_allclose(found, 0, atol=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=["full", "top-k"])
def test_it_keeps_the_contract_and_is_proven_and_travels_to_other_ranks(options: Mapping[str, Any]) -> None:
    check_plugin(EntropyAware(**options))
    loss = EntropyAware(**options)
    pickle.loads(pickle.dumps((token_loss_of(loss), loss.minimises())))


def test_the_student_cannot_choose_where_the_teachers_entropy_is_taken() -> None:
    with pytest.raises(ValidationError, match=re.escape("Input should be 'full' or 'teacher_topk'")):
        EntropyAware(support="student_topk", k=4)


def test_without_its_tail_it_says_what_that_minimises() -> None:
    said: list[str] = []
    loss = EntropyAware(support="teacher_topk", k=4, tail=False)
    loss.check(make_context(notify=said.append))
    assert said == [f"loss entropy_aware without its tail (tail: false): {loss.without_tail()}; set tail: true"]
    assert loss.minimises() is None
