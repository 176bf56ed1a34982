import math
import pickle
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from helpers.table_completions import completion_of, log_softmax, loss_at
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit import Array
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.testing import check_plugin, complete_batch, make_rollout, make_scored, prove_loss
from distillkit.testing.loss_proof.table_positions import TablePositions
from distillkit_builtin.losses.topk_cross_entropy import TopkCrossEntropy, topk_cross_entropy

WEIGHTS = (3.0, 1.0, 2.0)


def tables(seed: int, teachers: int) -> tuple[Array, list[Array]]:
    made_up = np.random.default_rng(seed)
    return made_up.standard_normal((4, 12)), [2 * made_up.standard_normal((4, 12)) for _ in range(teachers)]


def as_the_recipe_blends(logprobs: Sequence[Array], k: int) -> Mapping[int, float]:
    """Id to weight at one position, in plain Python, step by step as the recipe's documentation says it."""
    pooled: dict[int, float] = {}
    for table, weight in zip(logprobs, WEIGHTS, strict=False):
        ids = sorted(range(len(table)), key=lambda index: -table[index])[:k]
        mass = math.fsum(math.exp(table[index]) for index in ids)
        for index in ids:
            pooled[index] = pooled.get(index, 0.0) + weight * math.exp(table[index]) / mass
    kept = sorted(pooled.items(), key=lambda item: -item[1])[:k]
    total = math.fsum(weight for _, weight in kept)
    return {index: weight / total for index, weight in kept}


@pytest.mark.parametrize("teachers", [1, 2, 3])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 5))
def test_targets_are_those_of_the_recipe(teachers: int, seed: int, k: int) -> None:
    student, given_teachers = tables(seed, teachers)
    loss = TopkCrossEntropy(k=k)
    inputs = loss.inputs(completion_of(loss, student, given_teachers, WEIGHTS))
    assert {name: array.shape for name, array in inputs.items()} == {"target_ids": (4, k), "target_weights": (4, k)}
    assert inputs["target_weights"].dtype == np.float32
    for position in range(4):
        wanted = as_the_recipe_blends([log_softmax(table)[position] for table in given_teachers], k)
        assert inputs["target_ids"][position].tolist() == list(wanted)
        np.testing.assert_allclose(inputs["target_weights"][position], list(wanted.values()), rtol=1e-6)


@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_the_loss_is_the_cross_entropy_of_a_service(teachers: int) -> None:
    student, given_teachers = tables(9, teachers)
    loss = TopkCrossEntropy(k=3)
    values, gradients = loss_at(loss, student, given_teachers, WEIGHTS)
    logprobs = log_softmax(student)
    for position in range(4):
        blend = as_the_recipe_blends([log_softmax(table)[position] for table in given_teachers], 3)
        targets = np.zeros(12)
        targets[list(blend)] = list(blend.values())
        np.testing.assert_allclose(values[position], -(targets * logprobs[position]).sum(), rtol=1e-6)
        np.testing.assert_allclose(gradients[position], np.exp(logprobs[position]) - targets, atol=1e-6)


def test_the_whole_vocabulary_of_one_teacher_gives_the_gradient_of_the_forward_kl() -> None:
    student, (teacher,) = tables(4, 1)
    _, gradients = loss_at(TopkCrossEntropy(k=12), student, [teacher])
    np.testing.assert_allclose(gradients, np.exp(log_softmax(student)) - np.exp(log_softmax(teacher)), atol=1e-6)


def test_a_place_without_an_id_counts_nothing() -> None:
    rollout = make_rollout([65, 66])
    ids, logprobs = np.array([[7, -1], [8, 9]]), np.array([[-1.0, 0.0], [-1.0, -1.0]], np.float32)
    scored = make_scored(rollout, [-1.0, -1.0], arrays={"topk_ids": ids, "topk_logprobs": logprobs})
    (datum,) = complete_batch(TopkCrossEntropy(k=2), [scored], "sum").datums
    assert datum.inputs["target_ids"].tolist() == [[7, -1], [8, 9]]
    assert datum.inputs["target_weights"].tolist() == [[1.0, 0.0], [0.5, 0.5]]
    inputs = {name: torch.tensor(values) for name, values in datum.inputs.items()}
    logits = torch.zeros(2, 10, requires_grad=True)
    losses = topk_cross_entropy(
        TablePositions(logits, torch.tensor([1, 2]), torch.zeros(2), inputs, None, frozenset({"at_ids"})), {}
    )
    assert losses.tolist() == pytest.approx([math.log(10)] * 2)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert gradient[0, 7].item() == pytest.approx(0.1 - 1)


def test_a_longer_table_than_it_wants_is_cut_to_its_k() -> None:
    student, (teacher,) = tables(2, 1)
    wide = completion_of(TopkCrossEntropy(k=9), student, [teacher])
    just = TopkCrossEntropy(k=3)
    np.testing.assert_array_equal(
        just.inputs(wide)["target_weights"], just.inputs(completion_of(just, student, [teacher]))["target_weights"]
    )


def test_it_keeps_the_contract_and_services_know_it_as_cross_entropy() -> None:
    loss = TopkCrossEntropy()
    check_plugin(loss)
    assert (loss.loss_function, dict(loss.options()), loss.minimises()) == ("cross_entropy", {}, None)
    assert (dict(loss.needs()), set(loss.reads())) == ({"topk": 5}, {"at_ids"})
    pickle.loads(pickle.dumps(token_loss_of(loss)))


def test_what_it_promises_is_proven_and_that_it_leaves_a_teacher_that_it_has_reached_is_said() -> None:
    proof = prove_loss(TopkCrossEntropy())
    assert not proof.failures
    results = {check.name: check.result for check in proof.checks}
    assert results["equal teacher"] == results["expected gradient"] == "not claimed"
