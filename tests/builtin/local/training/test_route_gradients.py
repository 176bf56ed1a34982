"""Products of gradients by batch are those of autograd, add up to the step's, and change nothing."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import question

from builtin.local.training.sampled_batches import batch, gradients, lora
from distillkit import RunConfig, run
from distillkit.errors import BadStepError
from distillkit.training_data import Batch
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.route_gradients import gradient_products
from distillkit_builtin.local.training.trainer import Trainer


def halves() -> list[Batch]:
    whole = batch()
    return [replace(whole, datums=whole.datums[:2]), replace(whole, datums=whole.datums[2:])]


def flat(trainer: Trainer, data: Batch) -> torch.Tensor:
    trainer.compute_gradient(data)
    return torch.cat([gradient.flatten() for gradient in gradients(trainer).values()]).double()


def test_they_are_those_of_the_gradients_and_add_up_to_the_steps(causal_lm: CausalLM) -> None:
    trainer = lora(causal_lm)
    one, other, whole = (flat(trainer, data) for data in (*halves(), batch()))
    products = gradient_products(trainer, halves())
    assert products is not None
    expected = [[(a @ b).item() for b in (one, other)] for a in (one, other)]
    np.testing.assert_allclose(products, expected, rtol=1e-5)
    assert np.sum(products) == pytest.approx((whole @ whole).item(), rel=1e-4)


def test_they_change_nothing(load: Callable[..., CausalLM], tiny_model: str) -> None:
    measured, plain = lora(load(tiny_model)), lora(load(tiny_model))
    state = torch.get_rng_state()
    gradient_products(measured, halves())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in measured.policy.trained.values())
    assert measured.step(batch()).metrics == plain.step(batch()).metrics
    for name, parameter in plain.policy.trained.items():
        assert torch.equal(measured.policy.trained[name], parameter)


def test_a_batch_without_weight_has_no_gradient(causal_lm: CausalLM) -> None:
    whole = batch()
    idle = [replace(d, inputs={**d.inputs, "weights": np.zeros(len(d.response_ids), np.float32)}) for d in whole.datums]
    products = gradient_products(lora(causal_lm), [whole, replace(whole, datums=tuple(idle))])
    assert products is not None
    assert products[0][0] > 0
    assert products[0][1] == products[1][1] == 0


def test_what_is_not_finite_is_refused_as_by_a_step(causal_lm: CausalLM) -> None:
    whole = batch()
    first = whole.datums[0]
    bad = replace(first, inputs={**first.inputs, "advantages": np.full(len(first.response_ids), np.inf, np.float32)})
    with pytest.raises(BadStepError):
        gradient_products(lora(causal_lm), [replace(whole, datums=(bad,))])


def test_sharded_weights_have_none() -> None:
    trainer: Any = SimpleNamespace(policy=SimpleNamespace(sharded=object()))
    assert gradient_products(cast(Trainer, trainer), halves()) is None


def test_a_run_has_them(
    local_config: Callable[..., RunConfig], jsonl: Callable[..., str], other_tiny_model: str
) -> None:
    rows = [question(f"number {i}", teacher="ab"[i % 2]) for i in range(8)]
    scorer = {"name": "local", "dtype": "float32", "device": "cpu"}
    teachers = [
        {
            "model": other_tiny_model,
            "route_value": name,
            "scorer": scorer,
            "teacher_messages_key": f"{name}_messages",
            "missing_teacher_messages": "student",
        }
        for name in "ab"
    ]
    config = local_config(
        data={"path": jsonl(rows, "two.jsonl"), "shuffle": False},
        teachers=teachers,
        train={"prompt_groups_per_step": 4, "max_steps": 2, "route_gradients_every": 1},
    )
    first, second = run(config).metrics
    for row in (first, second):
        assert row["teacher_route/a/grad_norm"] > 0
        assert -1 <= row["route_cosine/a/b"] <= 1
        parts = row["teacher_route/a/grad_norm"] ** 2 + row["teacher_route/b/grad_norm"] ** 2
        parts += 2 * row["route_cosine/a/b"] * row["teacher_route/a/grad_norm"] * row["teacher_route/b/grad_norm"]
        assert parts**0.5 == pytest.approx(row["train/grad_norm"], rel=1e-3)
