from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import Field, PrivateAttr

from distillkit import EvalContext, Evaluator, Router, Sink
from distillkit.arrays import logprob_array
from distillkit.errors import AlignmentError, PluginError
from distillkit.events import EvalResult, Event
from distillkit.records import Batch, Datum, Failure, Score, ScoredRollout, ScoreRequest
from distillkit.roles.plugin import Plugin
from distillkit.testing import FakeScorer, FakeStudent, ListSink, check_plugin
from distillkit.types import Route, Row, Teacher
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from distillkit_builtin.sinks.console import ConsoleSink


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


class Undescribed(ListSink):
    """An option that nobody explains."""

    level: int = 3


class Loud(Sink):
    """Raises."""

    name: ClassVar[str] = "loud"

    def emit(self, event: Event) -> None:
        raise RuntimeError("no")


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


class Positive(FakeScorer):
    """Probabilities above one."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            yield Score(request, logprob_array([0.5] * len(request.rollout.token_ids)), None)


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


class Backwards(ImportanceSampling):
    """Turns the data round."""

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        return super().batch(scored[::-1])


class Weightless(ImportanceSampling):
    """Without normalization."""

    def _datum(self, one: ScoredRollout, weight: float) -> Datum:
        datum = super()._datum(one, weight)
        inputs = {name: array for name, array in datum.inputs.items() if name != "weights"}
        return Datum(datum.key, datum.prompt_ids, datum.response_ids, inputs)


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
        (Fickle(), "routes line 1 in two ways; `route` must be pure"),
        (Inventive(), r"routes line 1 to \['nobody'\]; the teachers are"),
        (Undescribed(), "option 'level' has no description"),
        (Silent(), "gave no outcome for 1 of 3 requests"),
        (Twice(), "gave 1 outcomes too many"),
        (Random(), "answered the same question with logprobs .* nats apart"),
        (Backwards(), "changes the order of the data"),
        (Weightless(), "gives a datum no `weights`"),
        (Forgetful(), "`save` wrote nothing"),
        (NotANumber(), "found {'x': nan}"),
        (Elsewhere(), r"names routes {'mars'}"),
        (Restless(), "has a fingerprint that is not of texts, or changes"),
        (Changing(), "its options change when written and read again"),
    ],
)
def test_check_plugin_names_the_broken_rule_and_the_class(plugin: Plugin, message: str) -> None:
    with pytest.raises(PluginError, match=message) as caught:
        check_plugin(plugin)
    assert type(plugin).__qualname__ in str(caught.value)


def test_probabilities_above_one_are_refused_by_the_score_itself() -> None:
    with pytest.raises(AlignmentError, match=r"token 0 is 0\.5, a probability of more than one"):
        check_plugin(Positive())


def test_what_a_plugin_raises_comes_through() -> None:
    with pytest.raises(RuntimeError, match="no"):
        check_plugin(Loud())


@pytest.mark.parametrize("plugin", [FakeStudent(), FakeScorer(likes="xyz"), ListSink(), ConsoleSink()])
def test_what_keeps_its_contract_passes(plugin: Plugin) -> None:
    check_plugin(plugin)


async def test_it_works_where_a_loop_is_running() -> None:
    check_plugin(FakeScorer())
