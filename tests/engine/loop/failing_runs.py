"""Runs of which one part dies at a given call, and all that they leave."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import read_jsonl
from pydantic import PrivateAttr

from distillkit import RunConfig, RunResult, run
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.run_directory.directory import run_directory
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

DIES_AT = 5
"""The number of the call, of what dies, at which it does."""


class Fuse:
    """Blows at one call, or at all from then on."""

    def __init__(self, at: int = 0, *, for_good: bool = False) -> None:
        self.at, self.for_good, self.calls = at, for_good, 0

    def blows(self) -> bool:
        self.calls += 1
        return self.calls == self.at or bool(self.for_good and self.at and self.calls > self.at)

    def use(self) -> None:
        if self.blows():
            raise ZeroDivisionError("the fuse has blown")


class Student(FakeStudent):
    """Fails to take new weights for sampling, to train or to save, as its fuses say."""

    name: ClassVar[str] = "fused"
    _fuses: dict[str, Fuse] = PrivateAttr(default_factory=dict)

    def use(self, what: str) -> None:
        if what in self._fuses:
            self._fuses[what].use()

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        async for outcome in super().sample(requests):
            yield Failure(outcome.request, "unlucky", retryable=True) if outcome.request.seed % 13 == 0 else outcome

    async def sync(self, weights: Weights) -> None:
        self.use("sync")
        await super().sync(weights)

    async def train(self, batch: Batch) -> StepResult:
        self.use("train")
        return await super().train(batch)

    async def save(self, path: Path) -> None:
        self.use("save")
        await super().save(path)


class Teacher(FakeScorer):
    """A server that answers no more, or an error that ends the run at once."""

    name: ClassVar[str] = "fused"
    _fuse: Fuse = PrivateAttr(default_factory=Fuse)
    _dead: Fuse = PrivateAttr(default_factory=Fuse)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        self._fuse.use()
        dead = self._dead.blows()
        async for outcome in super().score(requests):
            yield Failure(outcome.request, "no answer", retryable=True) if dead else outcome


class Loss(ImportanceSampling):
    """Counts its batches, and its numbers depend on that: a checkpoint must know how many there were."""

    name: ClassVar[str] = "counting"
    _fuse: Fuse = PrivateAttr(default_factory=Fuse)
    _batches: int = PrivateAttr(0)

    def state(self) -> dict[str, Any]:
        return {"batches": self._batches}

    def restore(self, state: Any, tensors: Any) -> None:
        self._batches = state["batches"]

    def batch(self, scored: Any) -> Batch:
        self._batches += 1
        self._fuse.use()
        return ImportanceSampling.batch(self.model_copy(update={"scale": 1 + 0.1 * self._batches}), scored)


def content(result: RunResult) -> dict[str, Any]:
    """All that a run leaves, but for times and how much was under way at once."""
    folder, apart = result.run_dir, ("wall_s", "train_s", "name", "provenance", "adapter_path")
    metrics = [
        {name: value for name, value in row.items() if not name.startswith("time/") and not name.endswith("/inflight")}
        for row in read_jsonl(folder / "metrics.jsonl")
    ]
    return {
        "metrics": metrics,
        "ledger": (folder / "ledger.jsonl").read_text(),
        "samples": (folder / "samples.jsonl").read_text(),
        "weights": (folder / "adapter/fake.safetensors").read_bytes(),
        "summary": {name: value for name, value in result.summary.items() if name not in apart},
    }


def fail(config: RunConfig, error: type[BaseException] = ZeroDivisionError) -> list[int]:
    """Let a run fail; return the steps of its checkpoints."""
    with pytest.raises(error):
        run(config)
    return [step_of(path) for path in checkpoints(run_directory(config))]
