"""A plugin that returns something of another type is named, with its method and class."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import distillkit
from distillkit import Evaluator, Loss, PromptBuilder, Router, RunConfig
from distillkit.errors import PluginError
from distillkit.testing import FakeScorer, FakeStudent


class TextRouter(Router):
    """Returns the teacher's name alone."""

    name: ClassVar[str] = "text"

    def route(self, *_: Any) -> Any:
        return "t"


class ListPrompts(PromptBuilder):
    """Returns the row's messages alone."""

    name: ClassVar[str] = "list"

    def build(self, row: Any, *_: Any) -> Any:
        return list(row.messages)


class DictEvaluator(Evaluator):
    """Returns metrics alone."""

    name: ClassVar[str] = "dict"

    async def evaluate(self, context: Any) -> Any:
        return {"a": 1.0}


class ListLoss(Loss):
    """Returns no batch."""

    name: ClassVar[str] = "list"
    loss_function: ClassVar[str] = "importance_sampling"

    def options(self) -> dict[str, float]:
        return {}

    def batch(self, scored: Any) -> Any:
        return list(scored)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"router": TextRouter()},
            r"router 'text' \(.*TextRouter\): route\(\) at .*:1 returned str, not Route",
        ),
        ({"prompts": ListPrompts()}, r"ListPrompts\): build\(\) at .*:1 returned list, not ChatPrompts"),
        ({"evaluators": [DictEvaluator()]}, r"DictEvaluator\): evaluate\(\) returned dict, not EvalResult"),
        ({"loss": ListLoss()}, r"loss 'list' \(.*ListLoss\): batch\(\) returned list, not Batch"),
    ],
)
def test_what_another_type_comes_from_is_named(
    fake_config: Callable[..., RunConfig], choice: dict[str, Any], message: str
) -> None:
    config = fake_config()
    config = fake_config(data={"eval_path": config.data.path}, **choice)
    with pytest.raises(PluginError, match=message):
        distillkit.run(config, plugins=[FakeStudent, FakeScorer])
