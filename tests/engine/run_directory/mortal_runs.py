"""Runs that die, or stop, after given steps, and all that they leave."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import read_jsonl
from pydantic import PrivateAttr

from distillkit import RunConfig, RunResult, run
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest


class Power:
    """Fails after so many trained steps, as often as it is told to."""

    def __init__(self, *after: int) -> None:
        self.after = list(after)
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps in self.after:
            self.after.remove(self.steps)
            raise ZeroDivisionError("the power went")


class Mortal(FakeStudent):
    """Dies when it is told to, before a step; some completions cannot be sampled."""

    name: ClassVar[str] = "mortal"
    _power: Power = PrivateAttr(default_factory=Power)

    @classmethod
    def on(cls, power: Power) -> "Mortal":
        student = cls(learning_rate=5.0)
        student._power = power
        return student

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for outcome in super().sample(requests):
            if outcome.request.seed % 11 == 0:
                yield Failure(outcome.request, "unlucky", retryable=True)
            else:
                yield outcome

    async def train(self, batch: Batch) -> StepResult:
        self._power.step()
        return await super().train(batch)


class Moving(FakeScorer):
    """A teacher that likes its characters more with each version, as a moving average might; keeps that as state."""

    name: ClassVar[str] = "moving"
    _synced: int = PrivateAttr(0)

    def moves(self) -> bool:
        return True

    async def on_sync(self, weights: Weights) -> None:
        self._synced += 1

    def state(self) -> dict[str, Any]:
        return {"synced": self._synced}

    def restore(self, state: Any, tensors: Any) -> None:
        self._synced = state["synced"]

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for outcome in super().score(requests):
            assert isinstance(outcome, Score)
            yield Score(outcome.request, outcome.logprobs - 0.01 * self._synced, outcome.echoed_ids, self._synced)


def content(result: RunResult) -> dict[str, Any]:
    """All that a run leaves, but for times and how much was under way at once."""
    folder = result.run_dir
    metrics = [
        {name: value for name, value in row.items() if not name.startswith("time/") and not name.endswith("/inflight")}
        for row in read_jsonl(folder / "metrics.jsonl")
    ]
    summary = {
        name: value for name, value in result.summary.items() if name not in ("wall_s", "train_s", "name", "provenance")
    }
    return {
        "metrics": metrics,
        "ledger": (folder / "ledger.jsonl").read_text(),
        "samples": (folder / "samples.jsonl").read_text(),
        "weights": (folder / "adapter/fake.safetensors").read_bytes(),
        "summary": {**summary, "adapter_path": None},
    }


def dead(make: Callable[..., RunConfig], after: int = 6, **train: Any) -> Path:
    """A run that died at this step, with a checkpoint of each step before."""
    config = make("dead", Power(after), save_every=1, keep_last=3, **train)
    with pytest.raises(ZeroDivisionError):
        run(config)
    return Path(config.log_path.replace("{name}", "dead"))


def each_row_once(folder: Path, of: int) -> None:
    """The ledger holds each row of each epoch, once, and none that failed or is still to be trained."""
    entries = read_jsonl(folder / "ledger.jsonl")
    assert len({(entry["row_id"], entry["epoch"]) for entry in entries}) == len(entries) == of
    assert {entry["outcome"] for entry in entries} == {"trained"}
