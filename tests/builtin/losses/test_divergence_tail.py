"""The tail of a top-K divergence: all that is not in it, as one outcome."""

import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.table_completions import log_softmax, loss_at
from hypothesis import given, settings
from hypothesis import strategies as st

from builtin.losses.divergence_cases import DIRECTIONS, SEEDS, SUPPORTS, logits, made, named
from distillkit.events import Notice
from distillkit.testing import make_context
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.divergence_formulas import between, kl, with_tail


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
