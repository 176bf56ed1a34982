"""A plugin that raises what it should not is named, with what its role promises."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import distillkit
from distillkit import Evaluator, RunConfig
from distillkit.events import EvalResult
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import StepResult
from engine.wrong_losses import ListLoss


class TextEvaluator(Evaluator):
    """Returns a metric that is text."""

    name: ClassVar[str] = "text"

    async def evaluate(self, context: Any) -> Any:
        return EvalResult({"fine": 1.0}, {"t": {"verdict": "good"}})  # type: ignore[dict-item]


class TextStudent(FakeStudent):
    """Reports a metric that is a list."""

    async def train(self, batch: Any) -> Any:
        return StepResult({"train/loss": [1.0]})  # type: ignore[dict-item]


class TextScorer(FakeScorer):
    """Measures a metric that is None."""

    name: ClassVar[str] = "nothing"

    def metrics(self) -> Any:
        return {"mine/measure": None}


class KeyLoss(ListLoss):
    """Looks for what is not there."""

    def batch(self, scored: Any) -> Any:
        return {}["gap"]


@pytest.mark.parametrize(
    ("choice", "error", "message", "note"),
    [
        (
            {"evaluators": [TextEvaluator()]},
            TypeError,
            "metric 'verdict' is 'good', which is no number",
            r"raised by evaluator 'text' \(.*TextEvaluator\) in evaluate\(\), \S+test_raised_errors\.py:\d+\. "
            r"Evaluator\.evaluate: Metrics of",
        ),
        (
            {"student": TextStudent()},
            TypeError,
            r"metric 'train/loss' is \[1\.0\], which is no number",
            r"raised by student 'fake' \(.*TextStudent\) in train\(\), \S+test_raised_errors\.py:\d+\. "
            r"Student\.train: One optimizer step",
        ),
        (
            {"teachers": [{"model": "t", "scorer": TextScorer()}]},
            TypeError,
            "metric 'mine/measure' is None, which is no number",
            r"raised by scorer 'nothing' \(.*TextScorer\) in metrics\(\), \S+test_raised_errors\.py:\d+\. "
            r"Scorer\.metrics: What is measured since",
        ),
        (
            {"loss": KeyLoss()},
            KeyError,
            "'gap'",
            r"raised by loss 'list' \(.*KeyLoss\) in batch\(\), \S+test_raised_errors\.py:\d+\. "
            r"Loss\.batch: The data of one optimizer step: a datum",
        ),
    ],
)
def test_what_fails_is_named_with_what_its_role_promises(
    fake_config: Callable[..., RunConfig], choice: dict[str, Any], error: type[Exception], message: str, note: str
) -> None:
    config = fake_config()
    config = fake_config(data={"eval_path": config.data.path}, **choice)
    with pytest.raises(error, match=message) as caught:
        distillkit.run(config, plugins=[FakeStudent, FakeScorer])
    (found,) = caught.value.__notes__
    assert re.match(note, found), found
