from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field, PrivateAttr

from distillkit import EvalContext, Evaluator, Loss, Router, Sink, Student
from distillkit.arrays import Array, logprob_array, token_ids
from distillkit.context import RunContext
from distillkit.errors import AlignmentError, PluginError
from distillkit.events import EvalResult, Event, RowValue
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest, Weights
from distillkit.roles.plugin import Plugin
from distillkit.testing import (
    FakeScorer,
    FakeStudent,
    ListSink,
    check_plugin,
    complete_batch,
    make_rollout,
    make_scored,
    make_scored_rollouts,
)
from distillkit.testing.synthetic_batches import make_arrays
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit.types import Route, RoutedRow, Row, SampleRequest, Teacher
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


class Many(Loss):
    """Needs more of scorers than the sampled logprobs, of any number of teachers, and keeps what it got."""

    name: ClassVar[str] = "many"
    loss_function: ClassVar[str] = "many"
    _seen: list[ScoredRollout] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[ScoredRollout]:
        return self._seen

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": 20, "at_ids": 3, "full": 1, "hidden": 8, "certainty": 1}

    def sampler_needs(self) -> Mapping[str, int]:
        return {"topk": 3, "entropy": 1}

    def max_teachers(self) -> int | None:
        return None

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        self._seen.append(completion)
        parts = [score.arrays["topk_logprobs"] for score in completion.scores.values()]
        return {"mixture": np.logaddexp.reduce(parts)}


class Two(Many):
    """Of two teachers at most."""

    def max_teachers(self) -> int | None:
        return 2


class Peculiar(Many):
    """Needs what only its author can make up."""

    def needs(self) -> Mapping[str, int]:
        return {"sampled": 1, "topk": 2, "parse_tree": 1}

    def inputs(self, completion: ScoredRollout) -> Mapping[str, Array]:
        assert completion.scores["teacher"].arrays["parse_tree"].dtype == np.int64, "a tree has nodes"
        return super().inputs(completion)


class OwnFunction(FakeStudent):
    """Knows a loss function of its own alone, and says when it trains."""

    _trained: list[Batch] = PrivateAttr(default_factory=list)

    @property
    def trained(self) -> list[Batch]:
        return self._trained

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return {"own": frozenset()}

    async def train(self, batch: Batch) -> StepResult:
        self._trained.append(batch)
        return await super().train(batch)


class Optionless(OwnFunction):
    """Its importance_sampling takes no options."""

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return {"importance_sampling": frozenset()}


@dataclass(frozen=True)
class Sampled:
    """Positions of one completion, in numpy."""

    logprobs: Array
    inputs: Mapping[str, Array]


class RunsTorch(OwnFunction):
    """Runs a loss's own code."""

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return {}

    def loss_capabilities(self) -> frozenset[str]:
        return frozenset({"logprobs"})

    async def train(self, batch: Batch) -> StepResult:
        self._trained.append(batch)
        assert batch.token_loss is not None
        losses = [
            batch.token_loss(Sampled(datum.inputs["sampling_logprobs"], datum.inputs), batch.options)  # type: ignore[arg-type]
            for datum in batch.datums
        ]
        return StepResult({"train/loss": float(sum(loss.sum() for loss in losses)), "train/count": float(len(losses))})


class Trainer(Student):
    """Trains, and does not sample."""

    name: ClassVar[str] = "trainer"
    _fake: OwnFunction = PrivateAttr(default_factory=Optionless)

    @property
    def fake(self) -> OwnFunction:
        return self._fake

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return self._fake.tokenizer(run)

    def context_length(self, run: RunContext) -> int | None:
        return None

    def loss_functions(self) -> Mapping[str, frozenset[str]]:
        return self._fake.loss_functions()

    async def train(self, batch: Batch) -> StepResult:
        return await self._fake.train(batch)

    async def publish(self, version: int) -> Weights:
        return Weights(version, "peft", Path())

    async def save(self, path: Path) -> None:
        await self._fake.save(path)

    async def load(self, path: Path) -> None:
        await self._fake.load(path)

    async def export(self, run_dir: Path) -> Path:
        return await self._fake.export(run_dir)


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


@pytest.mark.parametrize("loss", [Many(), Two()])
def test_a_loss_gets_all_that_it_says_it_needs(loss: Many) -> None:
    check_plugin(loss)
    assert {len(one.scores) for one in loss.seen} == {1, 2}
    for one in loss.seen:
        assert one.prompts.route.weights.keys() == one.scores.keys()
        count = len(one.rollout.token_ids)
        sampled = {name: array.shape for name, array in one.rollout.arrays.items()}
        assert sampled == {"topk_ids": (count, 3), "topk_logprobs": (count, 3), "entropy": (count,)}
        for score in one.scores.values():
            shapes = {name: array.shape for name, array in score.arrays.items()}
            assert shapes == {
                "topk_ids": (count, 20),
                "topk_logprobs": (count, 20),
                "at_logprobs": (count, 3 if len(one.scores) == 1 else 20),  # several: the union of their top-K
                "hidden": (count, 8),
                "certainty": (count,),
            }


@pytest.mark.parametrize("least", [1, 2, 20, 1000])
def test_made_up_top_k_are_a_distribution_that_agrees_with_the_sampled_logprobs(least: int) -> None:
    rollout = make_rollout([65, 150_000, 0], [-1.0, -1.0, -1.0])
    logprobs = logprob_array([-0.01, -1.0, -30.0])
    arrays = make_arrays(ScoreRequest(rollout, "t", token_ids([5]), topk=least), {}, logprobs)
    for ids, values, sampled, logprob in zip(*arrays.values(), rollout.token_ids, logprobs, strict=True):
        assert len(set(ids.tolist())) == least
        assert (np.diff(values) <= 0).all()
        assert np.exp(values, dtype=np.float64).sum() <= 1 + 1e-6
        assert (sampled in ids) == (logprob >= values.min())
        if sampled in ids:
            assert values[ids.tolist().index(sampled)] == logprob
        else:
            assert values.min() >= logprob


def test_made_up_logprobs_of_given_ids_are_those_of_the_made_up_top_k() -> None:
    rollout = make_rollout([65, 250, 0], [-1.0, -1.0, -1.0])
    logprobs = logprob_array([-0.01, -1.0, -3.0])
    top = make_arrays(ScoreRequest(rollout, "t", token_ids([5]), topk=20), {}, logprobs)
    asked = top["topk_ids"].copy()
    asked[0, -1] = -1
    (found,) = make_arrays(ScoreRequest(rollout, "t", token_ids([5]), at_ids=asked), {}, logprobs).values()
    assert found[0, -1] == -np.inf
    np.testing.assert_array_equal(np.delete(found.ravel(), 19), np.delete(top["topk_logprobs"].ravel(), 19))


def test_what_cannot_be_made_up_for_a_loss_is_said_and_can_be_passed() -> None:
    with pytest.raises(
        PluginError, match=r"(?s)a tree has nodes.*\['parse_tree'\], which the engine.*scored=\[make_scored"
    ):
        check_plugin(Peculiar())
    arrays = make_arrays(ScoreRequest(make_rollout([5, 6]), "t", token_ids([5]), topk=2), {}, logprob_array([-1, -1]))
    tree = {**arrays, "parse_tree": np.array([0, 0])}
    check_plugin(Peculiar(), scored=[make_scored(make_rollout([5, 6]), [-1.0, -1.0], arrays=tree)])


def test_a_student_is_trained_by_a_function_that_it_knows() -> None:
    student = Optionless()
    check_plugin(student)
    assert {batch.loss_function for batch in student.trained} == {"importance_sampling"}
    assert student.trained[0].options == {}
    running = RunsTorch()
    check_plugin(running)
    assert running.trained[0].token_loss is not None
    trainer = Trainer()
    check_plugin(trainer)
    assert trainer.fake.trained


def test_what_cannot_be_made_up_for_a_student_is_said_and_can_be_passed() -> None:
    student = OwnFunction()
    with pytest.raises(
        PluginError, match=r"OwnFunction.*knows the loss functions 'own'.*check_plugin\(student, batch="
    ):
        check_plugin(student)
    assert not student.trained
    batch = replace(complete_batch(ImportanceSampling(), make_scored_rollouts()), loss_function="own", options={})
    check_plugin(student, batch=batch)
    assert student.trained[0] is batch


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
