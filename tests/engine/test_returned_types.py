"""A plugin that returns something of another type is named, with its method and class."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

import distillkit
from distillkit import Evaluator, PromptBuilder, Router, RunConfig, Weighting
from distillkit.errors import PluginError
from distillkit.records import Weights
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch
from engine.wrong_losses import ListLoss


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


class ListScorer(FakeScorer):
    """Yields all at once."""

    name: ClassVar[str] = "list"

    async def score(self, requests: Any) -> Any:
        yield [outcome async for outcome in super().score(requests)]


class WholeScorer(FakeScorer):
    """Returns what it should yield."""

    name: ClassVar[str] = "whole"

    def score(self, requests: Any) -> Any:
        return list(requests)


class TextSampler(FakeStudent):
    """Yields texts."""

    name: ClassVar[str] = "texts"

    async def sample(self, requests: Any) -> Any:
        for request in requests:
            yield str(request.key)


class DictStudent(FakeStudent):
    """Trains to a dict."""

    name: ClassVar[str] = "dicts"

    async def train(self, batch: Any) -> Any:
        return {"train/loss": 1.0}


class HastyStudent(FakeStudent):
    """Publishes at once."""

    name: ClassVar[str] = "hasty"

    def publish(self, version: int) -> Any:
        return Weights(version, "live")


class PathStudent(FakeStudent):
    """Publishes a path alone."""

    name: ClassVar[str] = "path"

    async def publish(self, version: int) -> Any:
        return "weights"


class ListChecks(FakeScorer):
    """Checks to texts."""

    name: ClassVar[str] = "texts"

    def check(self, *_: Any) -> Any:
        return ["all is well"]


class ListMetrics(FakeScorer):
    """Measures names alone."""

    name: ClassVar[str] = "names"

    def metrics(self) -> Any:
        return ["gap"]


class OneWeighting(Weighting):
    """Gives one number for all."""

    name: ClassVar[str] = "one"

    def weigh(self, step: Any) -> Any:
        return 1.0


class NoneWeighting(Weighting):
    """Gives a completion no numbers."""

    name: ClassVar[str] = "none"

    def weigh(self, step: Any) -> Any:
        return [{"weight": 1.0} for _ in step]


class ListDatumLoss(ListLoss):
    """Gives a batch of what is no datum."""

    def batch(self, scored: Any) -> Any:
        return Batch("importance_sampling", {}, tuple({"key": each.key} for each in scored))  # type: ignore[misc]


def teacher(scorer: FakeScorer) -> dict[str, Any]:
    return {"teachers": [{"model": "t", "scorer": scorer}]}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            teacher(ListScorer()),
            r"scorer 'list' \(.*ListScorer\): score\(\) yielded list, not Score or Failure, \S+types\.py:\d+\. "
            r"Scorer\.score: ",
        ),
        (teacher(WholeScorer()), r"WholeScorer\): score\(\) returned list: write `async def score` that yields"),
        (teacher(ListChecks()), r"ListChecks\): check\(\) returned list, not CheckReport or None"),
        (teacher(ListMetrics()), r"ListMetrics\): metrics\(\) returned list, not Mapping"),
        ({"student": TextSampler()}, r"TextSampler\): sample\(\) yielded str, not Rollout or Failure"),
        ({"student": DictStudent()}, r"DictStudent\): train\(\) returned dict, not StepResult"),
        (
            {"student": HastyStudent()},
            r"HastyStudent\): publish\(\) returned Weights at once: write `async def publish`",
        ),
        ({"student": PathStudent()}, r"PathStudent\): publish\(\) returned str, not Weights"),
        ({"train": {"weightings": [OneWeighting()]}}, r"OneWeighting\): weigh\(\) returned float, not Sequence or nd"),
        (
            {"train": {"weightings": [NoneWeighting()]}},
            r"weigh\(\) returned dict for a completion, not an array",
        ),
        ({"loss": ListDatumLoss()}, r"ListDatumLoss\): batch\(\) yielded dict, not Datum"),
        (
            {"router": TextRouter()},
            r"router 'text' \(.*TextRouter\): route\(\) at .*:1 returned str, not Route, \S+types\.py:\d+\. "
            r"Router\.route: The teachers that score `row`, by name",
        ),
        ({"prompts": ListPrompts()}, r"ListPrompts\): build\(\) at .*:1 returned list, not ChatPrompts"),
        (
            {"evaluators": [DictEvaluator()]},
            r"DictEvaluator\): evaluate\(\) returned dict, not EvalResult, \S+types\.py:\d+\. "
            r"Evaluator\.evaluate: Metrics of the policy version in `context`, finite numbers by name",
        ),
        ({"loss": ListLoss()}, r"loss 'list' \(.*ListLoss\): batch\(\) returned list, not Batch"),
    ],
)
def test_what_another_type_comes_from_is_named(
    fake_config: Callable[..., RunConfig], choice: dict[str, Any], message: str
) -> None:
    config = fake_config()
    config = fake_config(data={"eval_path": config.data.path}, **choice)
    with pytest.raises(PluginError, match=message) as caught:
        distillkit.run(config, plugins=[FakeStudent, FakeScorer])
    assert not any("raised by" in note for note in getattr(caught.value, "__notes__", ()))
