"""How much of two routes' gaps is closed, one of answers of 12 tokens and one of 120: token_mean beside route_mean.

    python benchmarks/two_routes.py

A toy, without a model: the student's policy on a route is the softmax of logits over bytes that both routes share plus
logits of the route's own, all trained by plain gradient descent; each teacher likes other bytes. So what one route
teaches changes the other, as in a model, and every gap is known exactly.
"""

import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar

import numpy as np
from pydantic import PrivateAttr

from distillkit import Batch, Failure, FloatArray, IntArray, Rollout, RunConfig, SampleRequest, StepResult, Weights, run
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.testing.fakes import log_softmax

LENGTHS = {"short": 12, "long": 120}
LIKES = {"short": "0123456789", "long": "abcdefghijklm"}
SHARED, BYTES = len(LENGTHS), 256
SEEDS, STEPS, ROWS, RATE = (0, 1, 2), (30, 60), 8, 10.0


def route_of(prompt_ids: IntArray) -> int:
    """Which route a prompt is of: it says so."""
    return list(LENGTHS).index("short" if b"short" in bytes(i for i in prompt_ids.tolist() if i < 256) else "long")


class TwoRoutes(FakeStudent):
    """A policy for each route, which share a part."""

    name: ClassVar[str] = "two_routes"
    _tables: FloatArray = PrivateAttr(default_factory=lambda: np.zeros((SHARED + 1, BYTES), np.float32))
    _live: FloatArray = PrivateAttr(default_factory=lambda: np.zeros((SHARED + 1, BYTES), np.float32))

    def policy(self, tables: FloatArray, route: int) -> FloatArray:
        """Its logprobs on a route."""
        return log_softmax(tables[SHARED] + tables[route])

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        """As many tokens as answers of the route have."""
        for request in requests:
            route = route_of(request.prompt_ids)
            logprobs = self.policy(self._live, route)
            chances = np.exp(logprobs.astype(np.float64))
            chance = np.random.default_rng(request.seed)
            ids = chance.choice(len(chances), list(LENGTHS.values())[route], p=chances / chances.sum())
            yield Rollout(request, self._version, ids, logprobs[ids], "length", "")

    async def sync(self, weights: Weights) -> None:
        """Sample from what is trained."""
        self._live, self._version = self._tables.copy(), weights.version

    async def train(self, batch: Batch) -> StepResult:
        """Policy gradient of the weighted advantages, on policy."""
        change = np.zeros_like(self._tables)
        for datum in batch.datums:
            route = route_of(datum.prompt_ids)
            pull = datum.inputs["advantages"] * datum.inputs["weights"]
            gradient = -np.exp(self.policy(self._tables, route)) * pull.sum()
            np.add.at(gradient, datum.response_ids, pull)
            change[route] += gradient
            change[SHARED] += gradient
        self._tables = self._tables + np.float32(self.learning_rate) * change
        return StepResult({})

    def gap(self, route: int) -> float:
        """The reverse KL to the route's teacher, exactly."""
        ours = self.policy(self._tables, route).astype(np.float64)
        logits = np.zeros(ByteTokenizer.size, np.float32)
        logits[list(list(LIKES.values())[route].encode())] = 3.0
        return float((np.exp(ours) * (ours - log_softmax(logits)[:BYTES])).sum())


def closed(routes: Sequence[str], normalization: str, steps: int, seed: int, folder: Path) -> dict[str, float]:
    """The share of each route's gap that is closed after all steps."""
    rows = [
        json.dumps({"messages": [{"role": "user", "content": f"{name} {i}"}], "teacher": name})
        for i in range(steps * ROWS)
        for name in routes
    ]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    teachers: list[Any] = [
        {"model": name, "route_value": name, "share": 1, "scorer": FakeScorer(likes=LIKES[name])} for name in routes
    ]
    student = TwoRoutes(learning_rate=RATE)
    start = {name: student.gap(list(LENGTHS).index(name)) for name in routes}
    run(
        RunConfig(
            name=f"{'-'.join(routes)}-{normalization}-{steps}-{seed}",
            seed=seed,
            log_path=str(folder / "{name}"),
            data=str(folder / "rows.jsonl"),
            student=student,
            teachers=teachers,
            router="field",
            sinks=[],
            sampling={"max_completion_tokens": max(LENGTHS.values())},
            probe={"at_start": "never"},
            train={
                "prompt_groups_per_step": ROWS,
                "max_steps": steps,
                "normalization": normalization,
                "save_every_minutes": 0,
            },
        )
    )
    return {name: 1 - student.gap(list(LENGTHS).index(name)) / start[name] for name in routes}


def main() -> None:
    """Print a table."""
    print("| steps | route | alone | token_mean | route_mean |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for steps in STEPS:
            cases = [(list(LENGTHS), "token_mean"), (list(LENGTHS), "route_mean")]
            both = [[closed(*case, steps, seed, Path(folder)) for seed in SEEDS] for case in cases]
            for name, length in LENGTHS.items():
                alone = [closed([name], "token_mean", steps, seed, Path(folder)) for seed in SEEDS]
                cells = [f"{mean(found[name] for found in each):.0%}" for each in (alone, *both)]
                print(f"| {steps} | {name}, {length} tokens | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
