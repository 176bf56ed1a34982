"""The watch over gradients: a loss that trains rounding is told, and nothing that only has little left to learn."""

from collections.abc import Callable
from typing import ClassVar

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.events import Notice
from distillkit.loop.gradient_monitor import GradientMonitor
from distillkit.testing import FakeStudent, ListSink, make_rollout, make_scored
from distillkit.training_data import Batch, StepResult

Make = Callable[..., RunConfig]
APART = [make_scored(make_rollout([65, 66], [-1.0, -2.0]), [-2.0, -1.0])]
"""Its gaps cancel in the mean."""
ALIKE = [make_scored(make_rollout([65, 66], [-1.0, -2.0]), [-1.001, -2.0])]


def result(loss: float, norm: float) -> StepResult:
    return StepResult({"train/loss": loss, "train/grad_norm": norm})


@pytest.mark.parametrize(("loss", "norm"), [(0.72, 2.4e-7), (-0.72, 2.4e-7), (0.72, 0.0), (900.0, 1e-3)])
def test_a_gradient_of_rounding_size_is_told_once(loss: float, norm: float) -> None:
    told: list[str] = []
    watch = GradientMonitor(told.append)
    for _ in range(3):
        watch.check([result(0.7, 0.3), result(loss, norm), result(loss, norm)], APART)
    assert len(told) == 1
    assert f"train/grad_norm is {norm:.1e} where train/loss is" in told[0]
    assert "Are its weights detached" in told[0]


@pytest.mark.parametrize(
    ("results", "scored"),
    [
        ([result(0.72, 1e-4)], APART),  # many tokens that cancel
        ([result(1e-3, 1e-9)], APART),  # advantages that cancel, or are tiny
        ([result(0.0, 0.0)], APART),  # no token has any weight
        ([result(0.72, 0.0)], ALIKE),  # a cross-entropy whose teacher is reached
        ([result(0.72, 0.0)], []),
        ([StepResult({"train/loss": 0.72}), StepResult({"train/grad_norm": 0.0}), StepResult({})], APART),
        ([], APART),
    ],
)
def test_what_has_little_to_learn_is_no_alarm(
    results: list[StepResult], scored: list[distillkit.ScoredRollout]
) -> None:
    GradientMonitor(pytest.fail).check(results, scored)


class Flat(FakeStudent):
    """Reports a gradient of rounding size."""

    name: ClassVar[str] = "flat"

    async def train(self, batch: Batch) -> StepResult:
        return StepResult({**(await super().train(batch)).metrics, "train/loss": 0.72, "train/grad_norm": 2.4e-7})


def test_a_run_says_it_once(fake_config: Make) -> None:
    sink = ListSink()
    distillkit.run(fake_config(student=Flat(), sinks=[sink]))
    told = [
        event.message for event in sink.events if isinstance(event, Notice) and "no gradient to speak" in event.message
    ]
    assert len(told) == 1
