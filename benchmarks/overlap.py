"""Does a step take as long as its critical path, or as long as its phases one after another?

    python benchmarks/overlap.py

A student whose completions end one after another and whose training takes a fixed time, and two teachers behind real
HTTP servers of a fixed delay that take a few requests at once. The critical path follows from these times alone.
"""

import argparse
import asyncio
import heapq
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, PrivateAttr
from rich.console import Console
from rich.table import Table

import distillkit
from distillkit import RunConfig
from distillkit.context import RunContext
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import ByteTokenizer, FakeStudent
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

STEPS = 12
UNCOUNTED = 2
"""Steps at the start, in which connections are made and nothing is in flight yet."""


@dataclass(frozen=True)
class Case:
    """Seconds, and how many requests a teacher's server is sent at once."""

    name: str
    completions: int = 16
    first: float = 0.2
    between: float = 0.05
    train: float = 0.4
    delays: tuple[float, float] = (0.1, 0.1)
    at_once: int = 4
    off_policy: int = 0

    @property
    def arrivals(self) -> list[float]:
        """When each completion is there; they are routed to the two teachers in turn."""
        return [self.first + self.between * i for i in range(self.completions)]

    def scored_after(self, teacher: int) -> float:
        """When the last score of a teacher is there: a queue with `at_once` servers of a fixed delay."""
        free = [0.0] * self.at_once
        for arrival in self.arrivals[teacher::2]:
            heapq.heapreplace(free, max(free[0], arrival) + self.delays[teacher])
        return max(free)

    @property
    def window(self) -> float:
        """From the first request to the last score."""
        return max(self.scored_after(0), self.scored_after(1))

    @property
    def critical(self) -> float:
        """Seconds a step.

        One step off policy, the next window is sampled while this one trains: a step lasts as long as sampling, or as
        half of a window and its training, which two of them share.
        """
        if not self.off_policy:
            return self.window + self.train
        return max(self.arrivals[-1], self.train, (self.window + self.train) / 2)

    @property
    def one_after_another(self) -> float:
        """Sample all, then score all of one teacher, then of the other, then train."""
        rounds = -(-(self.completions // 2) // self.at_once)
        return self.arrivals[-1] + rounds * sum(self.delays) + self.train


CASES = (
    Case("two fast teachers"),
    Case("one slow teacher", delays=(0.1, 0.5)),
    Case("one slow teacher, one step off policy", delays=(0.1, 0.5), off_policy=1),
    Case("long training, one step off policy", train=0.9, off_policy=1),
)


class TimedStudent(FakeStudent):
    """The kit's fake student, in the time of a real one."""

    name: ClassVar[str] = "timed"
    first: float = Field(description="Seconds to the first completion.")
    between: float = Field(description="Seconds between two.")
    seconds: float = Field(description="Seconds of training.")
    _started: list[float] = PrivateAttr(default_factory=list)

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """Each completion at its time."""
        started, index = time.perf_counter(), 0
        self._started.append(started)
        async for outcome in super().sample(requests):
            due = started + self.first + self.between * index
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            index += 1
            yield outcome

    async def train(self, batch: Batch) -> StepResult:
        """The step, and then the rest of its time."""
        started = time.perf_counter()
        result = await super().train(batch)
        await asyncio.sleep(max(0.0, started + self.seconds - time.perf_counter()))
        return result


class TimedScorer(HttpScorer):
    """Scorer `http`, with a tokenizer that needs no file; notes when each score was there."""

    name: ClassVar[str] = "timed_http"
    _scored: list[float] = PrivateAttr(default_factory=list)

    def tokenizer(self, run: RunContext) -> Tokenizer:
        """Bytes, as the server's model has them."""
        return run.share("byte tokenizer", ByteTokenizer)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        """As it is, and the time."""
        async for outcome in super().score(requests):
            self._scored.append(time.perf_counter())
            yield outcome


def serve(delay: float, pipe: Connection) -> None:
    """A teacher's server, in a process of its own so that it costs the run nothing."""
    with LoopbackServer(CategoricalModel(), name="teacher", delay=delay) as server:
        pipe.send(server.url)
        pipe.recv()


@contextmanager
def servers(delays: Sequence[float]) -> Iterator[list[str]]:
    """The addresses of one server a delay."""
    context = multiprocessing.get_context("spawn")
    ends = []
    for delay in delays:
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(delay, theirs), daemon=True).start()
        ends.append(ours)
    try:
        yield [end.recv() for end in ends]
    finally:
        for end in ends:
            end.send(None)


def measure(case: Case, folder: Path) -> tuple[float, list[float]]:
    """Mean seconds of a step; and of each teacher, from a window's first request to its last score."""
    with servers(case.delays) as urls:
        rows = folder / "rows.jsonl"
        lines = [
            f'{{"messages": [{{"role": "user", "content": "{i}"}}], "teacher": "{("a", "b")[i % 2]}"}}\n'
            for i in range(case.completions * STEPS)
        ]
        rows.write_text("".join(lines), encoding="utf-8")
        student = TimedStudent(first=case.first, between=case.between, seconds=case.train, learning_rate=0.1)
        window = {"concurrency": {"initial": case.at_once, "max": case.at_once}}
        scorers = [TimedScorer(base_url=url, **window) for url in urls]
        config = RunConfig(
            log_path=str(folder / "run"),
            data={"path": str(rows), "shuffle": False},
            student=student,
            teachers=[
                {"model": "teacher", "route_value": route, "scorer": scorer}
                for route, scorer in zip("ab", scorers, strict=True)
            ],
            sampling={"max_completion_tokens": 64},
            train={
                "prompt_groups_per_step": case.completions,
                "max_steps": STEPS,
                "max_steps_off_policy": case.off_policy,
                "sample_every": 0,
            },
            probe={"at_start": "never"},
            sinks=[],
        )
        result = distillkit.run(config)
    seconds = [float(str(row["time/step"])) for row in result.metrics if "time/step" in row]
    last = [np.array(scorer._scored).reshape(STEPS, -1).max(axis=1) - student._started for scorer in scorers]
    return float(np.mean(seconds[UNCOUNTED:])), [float(np.mean(one[UNCOUNTED:])) for one in last]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    table = Table("case", "critical path", "measured", "over it", "one after another", "saved")
    routes = Table("last score of a window, a teacher", "as its own queue allows", "measured")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            measured, last = measure(case, Path(folder))
        over, saved = measured / case.critical - 1, 1 - measured / case.one_after_another
        table.add_row(
            case.name,
            f"{case.critical:.3f} s",
            f"{measured:.3f} s",
            f"{over:+.1%}",
            f"{case.one_after_another:.3f} s",
            f"{saved:.0%}",
        )
        if not case.off_policy:
            for teacher, seconds in enumerate(last):
                title = f"{case.name}: delay {case.delays[teacher]:g} s"
                routes.add_row(title, f"{case.scored_after(teacher):.3f} s", f"{seconds:.3f} s")
    Console(width=120).print(table, routes)


if __name__ == "__main__":
    main()
