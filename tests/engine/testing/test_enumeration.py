"""What a proof stands on: exact tables, every completion as the engine's records, gradients beside closed forms."""

import warnings
from itertools import product

import numpy as np
import pytest
from helpers.proved_losses import FullForward, Sampled, StudentTopK, TeacherTopK, forward_kl, reverse_kl

from distillkit.arrays import Array
from distillkit.testing.loss_proof.cases import LossCase, cases_of
from distillkit.testing.loss_proof.divergence_gradient import divergence_gradient
from distillkit.testing.loss_proof.enumeration import Masks, every_completion
from distillkit.testing.loss_proof.exact_batch import ExactBatch
from distillkit.testing.loss_proof.tables import Policies, random_table
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

POLICIES = Policies(random_table(0, 6), (random_table(1, 6), random_table(2, 6)))


def brute_force(policies: Policies) -> Array:
    """The expected gradient of the sampled reverse KL in the policy-gradient form, one completion after another."""
    student, teacher = policies.student, policies.mixture
    gradient = np.zeros_like(student)
    for first, second in product(range(6), repeat=2):
        sampled = np.exp(student[0, first] + student[1 + first, second])
        for prefix, token in ((0, first), (1 + first, second)):
            score = np.eye(6)[token] - np.exp(student[prefix])
            gradient[prefix] += sampled * (student[prefix, token] - teacher[prefix, token]) * score
    return gradient


def reverse_kl_gradient(policies: Policies) -> Array:
    """p (log p - log t - KL) at each prefix, by the logits, times how often it is written."""
    p, gap = np.exp(policies.student), policies.student - policies.mixture
    reach = np.r_[1.0, p[0]]
    return np.asarray(reach[:, None] * p * (gap - (p * gap).sum(1, keepdims=True)))


@pytest.mark.parametrize("seed", [0, 1, 2, 11])
def test_tables_are_float32_numbers_and_distributions_of_many_entropies(seed: int) -> None:
    table = random_table(seed, 6)
    assert table.shape == (7, 6)
    assert (table == table.astype(np.float32)).all()
    assert np.abs(np.exp(table).sum(1) - 1).max() < 1e-9
    entropies = -(np.exp(table) * table).sum(1)
    assert entropies.min() < 0.8 < 1.5 < entropies.max()


def test_expected_gradients_are_those_of_closed_forms() -> None:
    one = Policies(POLICIES.student, POLICIES.teachers[:1])
    wanted = reverse_kl_gradient(one)
    np.testing.assert_allclose(brute_force(one), wanted, atol=1e-10)
    np.testing.assert_allclose(divergence_gradient(reverse_kl, one), wanted, atol=1e-10)
    for loss in (ImportanceSampling(), Sampled()):
        np.testing.assert_allclose(ExactBatch.of(loss, one).run().expected, wanted, atol=1e-7)
    p, t, reach = np.exp(one.student), np.exp(one.mixture), np.r_[1.0, np.exp(one.student[0])]
    np.testing.assert_allclose(ExactBatch.of(FullForward(), one).run().expected, reach[:, None] * (p - t), atol=1e-10)


def test_two_teachers_are_a_mixture_by_the_weights_of_the_route() -> None:
    teachers = [np.exp(table) for table in POLICIES.teachers]
    np.testing.assert_allclose(np.exp(POLICIES.mixture), 0.75 * teachers[0] + 0.25 * teachers[1], atol=1e-12)
    np.testing.assert_allclose(ExactBatch.of(Sampled(), POLICIES).run().expected, brute_force(POLICIES), atol=1e-7)
    full = ExactBatch.of(FullForward(), POLICIES).run().expected
    np.testing.assert_allclose(full, divergence_gradient(forward_kl, POLICIES), atol=1e-10)


@pytest.mark.parametrize("loss", [TeacherTopK(k=3), StudentTopK(k=3)])
def test_every_completion_is_a_record_with_what_the_loss_needs(loss: TeacherTopK) -> None:
    completions = every_completion(loss, Policies(POLICIES.student, POLICIES.teachers[:1]))
    assert [one.rollout.token_ids.tolist() for one in completions] == [[*ids] for ids in product(range(6), repeat=2)]
    for one in completions:
        ids = one.rollout.token_ids
        rows = [0, 1 + ids[0]]
        (score,) = one.scores.values()
        np.testing.assert_array_equal(one.rollout.logprobs, POLICIES.student[rows, ids])
        np.testing.assert_array_equal(score.logprobs, POLICIES.teachers[0][rows, ids])
        top = np.argsort(-(POLICIES.teachers[0] if "topk" in loss.needs() else POLICIES.student)[rows], axis=1)[:, :3]
        arrays = loss.inputs(one)
        np.testing.assert_array_equal(arrays["ids"], top)
        np.testing.assert_array_equal(arrays["teacher"], np.take_along_axis(POLICIES.teachers[0][rows], top, axis=1))


def test_what_stands_behind_a_mask_reaches_records_and_no_warning() -> None:
    masks = Masks.every_third(36, np.nan, -2.0)
    first, second, third = every_completion(Sampled(), POLICIES, masks)[:3]
    assert np.isnan(first.rollout.logprobs).tolist() == [True, False]
    assert (first.scores["teacher"].logprobs == -2.0).tolist() == [True, False]
    assert np.isnan(second.rollout.logprobs).tolist() == [False, True]
    assert third.rollout.active.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ExactBatch.of(Sampled(), POLICIES, Masks.every_third(36, np.nan, np.nan)).ids) == 72 - 24


def test_sizes_are_those_that_an_option_may_have() -> None:
    assert [(case.k, case.teachers, len(case.policies.student)) for case in cases_of(TeacherTopK())] == [
        (2, 1, 7), (3, 1, 7), (4, 1, 7), (5, 1, 7)
    ]  # fmt: skip
    assert [case.label for case in cases_of(Sampled())] == ["1 teacher", "2 teachers"]
    case = LossCase("", Sampled(), 2)
    assert case.equal.teachers == (case.policies.student,) * 2
    assert not np.array_equal(case.other.mixture, case.policies.mixture)
