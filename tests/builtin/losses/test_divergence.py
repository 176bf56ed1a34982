import pickle
import re
import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import reference_divergence
from helpers.table_completions import log_softmax, loss_at, minimised, mixture_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distillkit import Array
from distillkit.events import Notice
from distillkit.loop.checked_token_loss import token_loss_of
from distillkit.testing import check_plugin, make_context
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.divergence_formulas import between, kl, with_tail

DIRECTIONS: list[Mapping[str, Any]] = [
    {"direction": "reverse"},
    {"direction": "forward"},
    {"direction": "jsd"},
    {"direction": "jsd", "beta": 0.0},
    {"direction": "jsd", "beta": 0.1},
    {"direction": "jsd", "beta": 1.0},
    {"direction": "skew"},
    {"direction": "skew", "beta": 0.0},
    {"direction": "skew", "beta": 0.7},
]
SUPPORTS = ["full", "teacher_topk", "student_topk", "union"]
SEEDS = st.integers(0, 2**32 - 1)
FORMATS = {
    # What float32 cannot hold is little here: logprobs are not far from 0, and a tail is no small part.
    np.float32: {"spread": 1.0, "rtol": 1e-6, "atol": 1e-6},
    np.float64: {"spread": 2.0, "rtol": 1e-7, "atol": 1e-9},
}


def named(options: Mapping[str, Any]) -> str:
    return " ".join(map(str, options.values()))


def made(support: str, k: int | None = 3, **options: Any) -> Divergence:
    return Divergence(support=support, k=None if support == "full" else k, **options)


def logits(seed: int, spread: float, tables: int = 2, dtype: type = np.float64) -> list[Array]:
    """[5, V]."""
    made_up = np.random.default_rng(seed)
    size = made_up.integers(12, 40)
    return [(spread * made_up.standard_normal((5, size))).astype(dtype) for _ in range(tables)]


def reference(loss: Divergence, s: Array, t: Array, ids: list[int] | None) -> tuple[float, Array]:
    beta = float(str(loss.options()["beta"]))
    return reference_divergence.divergence(loss.direction, beta, s, t, ids, tail=loss.tail)


def topk(table: Array, k: int) -> list[int]:
    return [int(index) for index in np.argsort(-table, kind="stable")[:k]]


def ids_of(loss: Divergence, student: Array, teachers: list[Array]) -> list[int] | None:
    """The support at a position."""
    k = loss.k or 0
    theirs = [index for teacher in teachers for index in topk(teacher, k)]
    mine = topk(student, k)
    return {"full": None, "teacher_topk": theirs, "student_topk": mine, "union": theirs + mine}[loss.support]


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


@pytest.mark.parametrize("support", SUPPORTS[1:])
@given(seed=SEEDS, k=st.integers(1, 8))
@settings(max_examples=25)
def test_with_its_tail_a_top_k_kl_is_at_most_the_whole_one_and_never_negative(support: str, seed: int, k: int) -> None:
    student, teacher = logits(seed, 2.0)
    whole = loss_at(Divergence(), student, [teacher])[0]
    part = loss_at(made(support, k), student, [teacher])[0]
    assert (part >= -1e-9).all()
    assert (part <= whole + 1e-9).all()


@given(excess=st.floats(-1e-3, 0.2), seed=SEEDS)
def test_a_tail_is_a_probability_whatever_the_mass_is_rounded_to(excess: float, seed: int) -> None:
    made_up = np.random.default_rng(seed)
    probabilities = made_up.dirichlet(np.ones(6), 4) * (1 + excess)
    logprobs = torch.tensor(np.log(probabilities), dtype=torch.float32, requires_grad=True)
    tailed = with_tail(logprobs)
    assert tailed.shape == (4, 7)
    assert (tailed[:, -1] < 0).all()
    assert (tailed[:, -1].exp() > 0).all()
    theirs = with_tail(torch.log_softmax(torch.tensor(made_up.standard_normal((4, 6))), dim=-1).float())
    for options in DIRECTIONS:
        loss = Divergence(**options)
        found = between(loss.direction, float(str(loss.options()["beta"])), tailed, theirs)
        (gradient,) = torch.autograd.grad(found.sum(), logprobs, retain_graph=True)
        assert torch.isfinite(found).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("options", DIRECTIONS, ids=named)
def test_outcomes_that_neither_side_can_have_add_nothing(options: Mapping[str, Any]) -> None:
    loss = Divergence(**options)
    beta = float(str(loss.options()["beta"]))
    made_up = torch.Generator().manual_seed(2)
    full = [torch.randn(4, 6, generator=made_up, dtype=torch.float64).requires_grad_() for _ in range(2)]
    lacking = [torch.cat([each, torch.full((4, 3), -torch.inf)], dim=1) for each in full]
    values, gradients = [], []
    for student, teacher in (full, lacking):
        found = between(loss.direction, beta, torch.log_softmax(student, 1), torch.log_softmax(teacher, 1).detach())
        values.append(found)
        gradients.append(torch.autograd.grad(found.sum(), full[0])[0])
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_what_one_side_alone_can_have_is_infinite_or_bounded_by_direction() -> None:
    student, teacher = torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.5, 0.0, 0.5]]).log()
    assert kl(student, teacher).item() == np.inf
    assert between("jsd", 0.5, student, teacher).item() == pytest.approx(0.5 * np.log(2))
    assert between("skew", 0.1, student, teacher).item() == pytest.approx(0.5 * -np.log(0.1))


def test_reverse_kl_without_its_tail_falls_as_the_student_leaves_the_top_k() -> None:
    """Both sides are equal: with the tail there is nothing to learn, without it the student empties its top-K."""
    student = log_softmax(np.array([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]]))
    _, gradients = loss_at(made("student_topk", tail=False), student, [student])
    assert (gradients[0, :3] > 0.004).all()
    assert (gradients[0, 3:] < -0.001).all()
    _, gradients = loss_at(made("student_topk", tail=False, direction="forward"), student, [student])
    assert (gradients[0, :3] < -0.004).all()
    _, gradients = loss_at(made("student_topk", tail=False, direction="jsd"), student, [student])
    np.testing.assert_allclose(gradients, 0, atol=1e-12)


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


@pytest.mark.parametrize(
    ("direction", "word"), [("reverse", "empties"), ("skew", "empties"), ("forward", "all probability")]
)
def test_a_loss_without_its_tail_says_what_that_minimises(direction: str, word: str) -> None:
    told: list[Notice] = []
    run = replace(make_context(), tell=told.append)
    made("teacher_topk", tail=False, direction=direction).check(run)
    (notice,) = told
    assert notice.message.startswith("loss divergence without its tail (tail: false): ")
    assert notice.kind == ("warning" if word == "empties" else "note")
    assert notice.message.endswith("; set tail: true") == (word == "empties")
    assert word in notice.message
    made("teacher_topk").check(run)
    assert len(told) == 1


def test_training_without_the_tail_leaves_more_and_empties_the_students_top_k() -> None:
    """The figures of docs/losses.md, which benchmarks/topk_tail.py prints, with a wide margin."""
    left_after = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "topk_tail.py"))["left_after"]
    for support, margin in (("student_topk", 1.2), ("teacher_topk", 2.5)):
        kept, mass = left_after(made(support, 8), 0, 300)
        lost, emptied = left_after(made(support, 8, tail=False), 0, 300)
        assert lost > margin * kept
        assert emptied < 0.9 * mass
