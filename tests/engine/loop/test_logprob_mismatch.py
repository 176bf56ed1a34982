"""The watch over sampler and trainer: whose numbers it takes, and how often it warns."""

from collections.abc import Callable
from typing import ClassVar

import pytest
from pydantic import PrivateAttr

import distillkit
from distillkit import RunConfig
from distillkit.events import Notice
from distillkit.loop.training import MISMATCH, MismatchMonitor
from distillkit.testing import FakeStudent, ListSink
from distillkit.training_data import Batch, StepResult

Make = Callable[..., RunConfig]


def result(value: float) -> StepResult:
    return StepResult({MISMATCH: value, f"{MISMATCH}_max": 3 * value, "train/loss": 1.0})


def test_it_takes_the_first_optimizer_step_alone() -> None:
    watch = MismatchMonitor(10.0, pytest.fail)
    assert watch.check([result(0.1), result(5.0)]) == {MISMATCH: 0.1, f"{MISMATCH}_max": pytest.approx(0.3)}
    assert watch.check([]) == {}
    assert watch.check([StepResult({"train/loss": 1.0}), result(5.0)]) == {}


def test_it_warns_past_the_threshold_and_again_only_past_the_double() -> None:
    told: list[str] = []
    watch = MismatchMonitor(0.1, told.append)
    heard = []
    for value in (0.1, 0.11, 0.2, 0.22, 0.23, 0.46, 0.1, 0.47):
        watch.check([result(value)])
        heard.append(len(told))
    assert heard == [0, 1, 1, 1, 2, 2, 2, 3]
    assert told[0].startswith(f"the sampler's logprobs are 0.110 nats a token from the trainer's ({MISMATCH})")
    assert "Does the sampler serve the student's own base model" in told[0]


def test_no_server_is_blamed_where_the_student_samples_by_itself() -> None:
    told: list[str] = []
    MismatchMonitor(0.1, told.append, own_sampler=True).check([result(0.3)])
    assert told[0].startswith("the student's own sampling logprobs are 0.300 nats a token from the trainer's")
    assert "serve" not in told[0].replace("no other server", "")
    for cause in ("dropout", "rounding", "experts", "max_steps_off_policy"):
        assert cause in told[0]


class Apart(FakeStudent):
    """Finds the sampler further from itself with each optimizer step."""

    name: ClassVar[str] = "apart"
    _values: list[float] = PrivateAttr(default_factory=list)

    async def train(self, batch: Batch) -> StepResult:
        metrics = (await super().train(batch)).metrics
        return StepResult({**metrics, MISMATCH: self._values.pop(0)})


def told(sink: ListSink) -> list[str]:
    return [event.message for event in sink.events if isinstance(event, Notice) and MISMATCH in event.message]


def test_a_run_logs_it_every_step_and_warns_once(fake_config: Make) -> None:
    student, sink = Apart(), ListSink()
    student._values = [0.01, 0.6, 0.3, 0.7, 0.5, 0.8, 0.59, 0.9, 0.02, 0.9]
    run = distillkit.run(fake_config(student=student, train={"num_substeps": 2}, sinks=[sink]))
    assert [row[MISMATCH] for row in run.metrics] == [0.01, 0.3, 0.5, 0.59, 0.02]
    assert len(told(sink)) == 1
    assert told(sink)[0].startswith("the student's own sampling logprobs are 0.300 nats")
    assert "0.300 nats" in (run.run_dir / "run.log").read_text(encoding="utf-8")


def test_the_threshold_is_an_option(fake_config: Make) -> None:
    student, sink = Apart(), ListSink()
    student._values = [0.3] * 5
    distillkit.run(fake_config(student=student, train={"warn_logprob_mismatch": 0.4}, sinks=[sink]))
    assert told(sink) == []


def test_students_that_measure_nothing_log_nothing(fake_config: Make) -> None:
    assert all(MISMATCH not in row for row in distillkit.run(fake_config()).metrics)
