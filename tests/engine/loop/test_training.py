"""What is not finite never reaches the weights; a step of which nothing is left is tried once more."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import read_jsonl
from pydantic import PrivateAttr

from distillkit import RunConfig, run
from distillkit.errors import BadStepError, RunFailedError
from distillkit.events import Notice
from distillkit.records import Failure, Rollout, ScoredRollout
from distillkit.testing import FakeStudent, ListSink
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]


class Overflowing(ImportanceSampling):
    """Has an advantage that is not finite in the optimizer steps that it is told."""

    name: ClassVar[str] = "overflowing"
    _steps: tuple[int, ...] = PrivateAttr(())
    _seen: int = PrivateAttr(0)

    @classmethod
    def at(cls, *steps: int) -> "Overflowing":
        loss = cls()
        loss._steps = steps
        return loss

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        self._seen += 1
        batch = super().batch(scored)
        if self._seen not in self._steps:
            return batch
        advantages = batch.datums[-1].inputs["advantages"].copy()
        advantages[1] = np.nan
        spoilt = replace(batch.datums[-1], inputs={**batch.datums[-1].inputs, "advantages": advantages})
        return replace(batch, datums=(*batch.datums[:-1], spoilt))


class Doubtful(FakeStudent):
    """Refuses every step."""

    name: ClassVar[str] = "doubtful"

    async def train(self, batch: Batch) -> StepResult:
        raise BadStepError("the gradient's norm is nan")


def directory(config: RunConfig) -> Path:
    return Path(config.log_path.replace("{name}", config.name))


def test_a_refused_step_is_reported_with_row_and_token_and_the_next_ones_train(fake_config: Make) -> None:
    config = fake_config(loss=Overflowing.at(2), train={"max_failed_fraction": 0.5})
    result = run(config)
    entries = read_jsonl(result.run_dir / "ledger.jsonl")
    assert [entry["outcome"] for entry in entries] == ["trained"] * 2 + ["failed"] * 2 + ["trained"] * 6
    reason = entries[3]["completions"][-1]["reason"]
    assert reason.startswith("row ")
    assert reason.endswith("advantages of token 1 is nan")
    assert entries[3]["completions"][-1]["stage"] == "train"
    steps = {row["step"]: row for row in result.metrics}
    assert steps[2]["train/refused_completions"] == 4.0
    assert "train/loss" not in steps[2]
    assert "train/loss" in steps[3]
    assert "an optimizer step was refused, the weights are as they were" in (result.run_dir / "run.log").read_text()
    assert (result.steps, result.summary["failed_completions"]) == (5, 4)


def test_with_substeps_only_the_bad_part_is_refused(fake_config: Make) -> None:
    result = run(fake_config(loss=Overflowing.at(1), train={"num_substeps": 2, "max_failed_fraction": 1.0}))
    first, second = read_jsonl(result.run_dir / "ledger.jsonl")[:2]
    assert (first["outcome"], second["outcome"]) == ("failed", "trained")
    assert result.metrics[0]["train/refused_completions"] == 2.0
    assert "train/advantage" in result.metrics[0]


def test_too_many_in_a_row_end_the_run(fake_config: Make) -> None:
    config = fake_config(student=Doubtful(), train={"max_bad_steps": 2, "max_failed_fraction": 1.0})
    with pytest.raises(RunFailedError, match=r"3 optimizer steps in a row .* train\.max_bad_steps=2"):
        run(config)
    outcomes = [entry["outcome"] for entry in read_jsonl(directory(config) / "ledger.jsonl")]
    assert outcomes == ["failed"] * 6
    assert run(
        fake_config(name="apart", loss=Overflowing.at(1, 3, 5), train={"max_bad_steps": 1, "max_failed_fraction": 1.0})
    )


class Outage(FakeStudent):
    """Cannot draw anything at its second and third asking."""

    name: ClassVar[str] = "outage"
    _asked: int = PrivateAttr(0)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        self._asked += 1
        if self._asked in (2, 4, 5):
            for request in requests:
                yield Failure(request, "the server is down", retryable=True)
            return
        async for outcome in super().sample(requests):
            yield outcome


def test_a_step_of_which_nothing_is_left_is_tried_once_more(fake_config: Make) -> None:
    result = run(fake_config(student=Outage(learning_rate=1.0), train={"max_failed_fraction": 1.0}))
    entries = read_jsonl(result.run_dir / "ledger.jsonl")
    outcomes = [entry["outcome"] for entry in entries]
    assert outcomes == ["trained"] * 4 + ["failed"] * 2 + ["trained"] * 4
    assert entries[4]["completions"][0]["reason"] == "the server is down"
    log = (result.run_dir / "run.log").read_text()
    assert "step 2: all 4 completions failed, and are tried once more: the server is down" in log
    assert len({entry["row_id"] for entry in entries}) == len(entries)


def test_a_step_of_which_nothing_is_left_then_either_ends_the_run_and_costs_no_row(fake_config: Make) -> None:
    config = fake_config(student=Outage(learning_rate=1.0), train={"max_failed_fraction": 0.9})
    with pytest.raises(RunFailedError, match=r"step 3: all 4 completions failed, also when .*: the server is down"):
        run(config)
    folder = directory(config)
    assert "step 2, the last good one, is saved" in (folder / "run.log").read_text()
    whole = run(fake_config(name="whole", student=FakeStudent(learning_rate=1.0)))
    back = Outage(learning_rate=1.0)
    back._asked = 5
    again = run(fake_config(student=back), resume=True)
    weights, expected = ((result.run_dir / "adapter/fake.safetensors").read_bytes() for result in (again, whole))
    assert weights == expected
    assert [entry["outcome"] for entry in read_jsonl(folder / "ledger.jsonl")] == ["trained"] * 10


@pytest.mark.parametrize("tokens", [100, 3])
def test_a_step_that_trains_nothing_is_said_once(fake_config: Make, tokens: int) -> None:
    """A run whose weightings leave nothing looks like one that has nothing to learn."""
    sink = ListSink()
    weightings = [{"name": "skip_first", "tokens": tokens}]
    result = run(fake_config(train={"weightings": weightings, "num_substeps": 2}, sinks=[sink]))
    assert result.steps == 5
    said = [event.message for event in sink.events if isinstance(event, Notice) and "trains nothing" in event.message]
    assert len(said) == (tokens == 100)
    assert all(message.startswith("step 1 trains nothing: train.weightings") for message in said)
