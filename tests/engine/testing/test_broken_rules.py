"""`check_plugin` names the rule that a plugin breaks, and its class."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field, PrivateAttr

from distillkit import EvalContext, Evaluator, Router
from distillkit.arrays import Array, logprob_array
from distillkit.errors import PluginError
from distillkit.events import EvalResult, RowValue
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest
from distillkit.roles.plugin import Plugin
from distillkit.testing import FakeScorer, FakeStudent, ListSink, check_plugin
from distillkit.training_data import Batch, StepResult
from distillkit.types import Route, RoutedRow, Row, SampleRequest, Teacher
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from engine.testing.own_function_students import Optionless


class Fickle(Router):
    """Changes its mind."""

    name: ClassVar[str] = "fickle"

    def route(self, row: Row, teachers: Sequence[Teacher], turn: list[int] = [0]) -> Route:  # noqa: B006
        turn[0] += 1
        return Route.to(teachers[turn[0] % 2].name)


class Inventive(Fickle):
    """Makes teachers up."""

    def route(self, row: Row, teachers: Sequence[Teacher], turn: object = None) -> Route:
        return Route.to("nobody")


class Talkative(Evaluator):
    """Says one text where a list is asked for."""

    name: ClassVar[str] = "talkative"

    async def evaluate(self, context: EvalContext) -> EvalResult:
        return EvalResult({})

    def notes(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Sequence[str]:
        return f"{len(rows)} rows"


class Wavering(Talkative):
    """Says something else each time."""

    def notes(self, rows: object, teachers: object, turn: list[int] = [0]) -> Sequence[str]:  # noqa: B006
        turn[0] += 1
        return [str(turn[0])]


class Undescribed(ListSink):
    """An option that nobody explains."""

    level: int = 3


class Silent(FakeScorer):
    """Answers all but one."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests[1:]):
            yield score


class Twice(FakeScorer):
    """Answers twice."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score([*requests, requests[0]]):
            yield score


class Random(FakeScorer):
    """Another answer each time."""

    async def score(
        self,
        requests: Sequence[ScoreRequest],
        turn: list[int] = [0],  # noqa: B006
    ) -> AsyncIterator[Score | Failure]:
        for request in requests:
            turn[0] += 1
            yield Score(request, logprob_array([-float(turn[0])] * len(request.rollout.token_ids)), None)


class StudentsIds(FakeScorer):
    """Scores what was sampled, whatever it is to read."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score([replace(request, read_ids=None) for request in requests]):
            assert isinstance(score, Score)
            request = next(request for request in requests if request.key == score.request.key)
            yield replace(score, request=request, echoed_ids=None)


class GoesOn(FakeStudent):
    """Knows no end but its own."""

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        free = [replace(request, params=replace(request.params, stop_ids=())) for request in requests]
        async for rollout in super().sample(free):
            assert isinstance(rollout, Rollout)
            yield replace(rollout, request=next(request for request in requests if request.key == rollout.key))


class Backwards(ImportanceSampling):
    """Turns the data round."""

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        return super().batch(scored[::-1])


class OwnWeights(ImportanceSampling):
    """Gives weights, which are the engine's."""

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        return {**super().inputs(completion), "weights": np.ones(len(completion.rollout.token_ids), np.float32)}


class Diverging(Optionless):
    """Reports a loss that is no number."""

    async def train(self, batch: Batch) -> StepResult:
        return StepResult({"train/loss": float("nan")})


class Renaming(ImportanceSampling):
    """Trains other ids than the sampled."""

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        made = super().batch(scored)
        return replace(made, datums=[replace(datum, response_ids=datum.response_ids + 1) for datum in made.datums])


class Forgetful(FakeStudent):
    """Saves nothing."""

    async def save(self, path: Any) -> None:
        return None


class NotANumber(Evaluator):
    """Finds NaN."""

    name: ClassVar[str] = "nan"

    async def evaluate(self, context: EvalContext) -> EvalResult:
        return EvalResult({"x": float("nan")})


class Elsewhere(NotANumber):
    """Names a route that is none."""

    async def evaluate(self, context: EvalContext) -> EvalResult:
        return EvalResult({}, {"mars": {"x": 1.0}})


class OtherSum(NotANumber):
    """Its rows do not make its metric."""

    async def evaluate(self, context: EvalContext) -> EvalResult:
        return EvalResult({"x": 1.0}, {}, {"x": {row.row_id: RowValue(0.5) for row in context.rows}})


class OtherRows(NotANumber):
    """Has values of rows that are not held out."""

    async def evaluate(self, context: EvalContext) -> EvalResult:
        return EvalResult({"x": 1.0}, {}, {"x": {"mars": RowValue(1.0)}})


class Restless(FakeScorer):
    """Is another model each time."""

    _times: int = PrivateAttr(0)

    def fingerprint(self) -> Mapping[str, str]:
        self._times += 1
        return {"times": str(self._times)}


class Changing(ListSink):
    """Its options do not survive."""

    name: ClassVar[str] = "changing"
    items: Mapping[str, int] = Field(default_factory=dict, description="Things.")

    def model_post_init(self, context: Any, /) -> None:
        self.__dict__["items"] = {**self.items, str(len(self.items)): 1}


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Fickle(), "routes made up:1 in two ways; `route` must be pure"),
        (Inventive(), r"routes made up:1 to \['nobody'\]; the teachers are"),
        (Talkative(), "gives `notes` that are no list of texts"),
        (Wavering(), "gives other `notes` of the same rows"),
        (Undescribed(), "option 'level' has no description"),
        (Silent(), "gave no outcome for 1 of 3 requests"),
        (Twice(), "gave 1 outcomes too many"),
        (StudentsIds(likes="t"), r"scored other ids than `ScoreRequest.token_ids`"),
        (GoesOn(), "goes on behind a token of `params.stop_ids`"),
        (Random(), "answered the same question with logprobs .* nats apart"),
        (Backwards(), "gave other data than one datum a completion, in order"),
        (OwnWeights(), "gives a datum weights, which the engine does"),
        (Renaming(), "trains other ids than the sampled"),
        (Diverging(), "reports metrics that are no finite numbers: {'train/loss': nan}"),
        (Forgetful(), "`save` wrote nothing"),
        (NotANumber(), "found {'x': nan}"),
        (Elsewhere(), r"names routes {'mars'}"),
        (OtherSum(), r"`by_row` of x makes 1\.5 / 3, which is not the metric 1\.0"),
        (OtherRows(), r"`by_row` of x names rows {'mars'}"),
        (Restless(), "has a fingerprint that is not of texts, or changes"),
        (Changing(), "its options change when written and read again"),
    ],
)
def test_check_plugin_names_the_broken_rule_and_the_class(plugin: Plugin, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        check_plugin(plugin)
    assert type(plugin).__qualname__ in str(caught.value)
