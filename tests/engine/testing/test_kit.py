"""`check_plugin` on plugins that keep their contract, and on students that are trained by a function of their own."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import PrivateAttr

from distillkit import Sink, Student
from distillkit.arrays import Array, logprob_array
from distillkit.context import RunContext
from distillkit.errors import AlignmentError, PluginError
from distillkit.events import Event
from distillkit.records import Failure, Score, ScoreRequest, Weights
from distillkit.roles.plugin import Plugin
from distillkit.testing import FakeScorer, FakeStudent, ListSink, check_plugin, complete_batch, make_scored_rollouts
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from distillkit_builtin.sinks.console import ConsoleSink
from engine.testing.own_function_students import Optionless, OwnFunction


class Loud(Sink):
    """Raises."""

    name: ClassVar[str] = "loud"

    def emit(self, event: Event) -> None:
        raise RuntimeError("no")


class Positive(FakeScorer):
    """Probabilities above one."""

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        for request in requests:
            yield Score(request, logprob_array([0.5] * len(request.rollout.token_ids)), None)


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
