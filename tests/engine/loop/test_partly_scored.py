"""A step that a dying teacher leaves partly scored: what is left is trained, and what is missing is said everywhere."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from pydantic import PrivateAttr

from distillkit import RunConfig, RunResult, run
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.run_directory.directory import run_directory
from distillkit.testing import FakeScorer

Make = Callable[..., RunConfig]


class Dying(FakeScorer):
    """Scores so many completions, and no more."""

    name: ClassVar[str] = "dying"
    scores: int = 0
    _scored: int = PrivateAttr(0)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for outcome in super().score(requests):
            self._scored += 1
            dead = self._scored > self.scores
            yield Failure(outcome.request, "connection refused", retryable=True) if dead else outcome


@pytest.fixture
def make(fake_config: Make, jsonl: Callable[..., str]) -> Make:
    """Two steps of two rows of teacher `math` and one of `prose`, with two completions each; `math` scores so many."""
    rows = [question(f"row {i}", teacher="prose" if i % 3 == 2 else "math") for i in range(6)]

    def config(scores: int, **train: Any) -> RunConfig:
        scorers = {"math": Dying(likes="abc", scores=scores), "prose": FakeScorer(likes="xyz")}
        return fake_config(
            data={"path": jsonl(rows, "routed.jsonl"), "shuffle": False},
            router={"name": "field", "route_key": "teacher"},
            teachers=[{"model": name, "route_value": name, "scorer": scorer} for name, scorer in scorers.items()],
            train={"prompt_groups_per_step": 3, **train},
        )

    return config


def second_step(result: RunResult) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Its counts, and its rows in the ledger."""
    (metrics,) = [row for row in result.metrics if row["step"] == 2]
    counts = {name: value for name, value in metrics.items() if name.endswith(("/trained", "/failed", "/scored"))}
    return counts, [row for row in read_jsonl(result.run_dir / "ledger.jsonl") if row["step"] == 2]


def test_what_is_left_is_trained_and_metrics_ledger_and_summary_say_what_is_missing(make: Make) -> None:
    result = run(make(4 + 1, max_failed_fraction=0.2))
    counts, (first, second, third) = second_step(result)
    assert counts == {
        "completions/trained": 3.0,
        "completions/failed": 3.0,
        "teacher_route/math/scored": 1.0,
        "teacher_route/math/failed": 3.0,
        "teacher_route/prose/scored": 2.0,
        "teacher_route/prose/failed": 0.0,
    }
    assert [row["outcome"] for row in (first, second, third)] == ["trained", "failed", "trained"]
    lost = {"outcome": "failed", "stage": "score", "reason": "connection refused", "teacher": "math"}
    for each in (first["completions"][1], *second["completions"]):
        assert each.items() >= lost.items()
    assert (result.summary["trained_completions"], result.summary["failed_completions"]) == (9, 3)
    assert "failed 3" in (result.run_dir / "run.log").read_text()


def test_where_fewer_rows_may_fail_nothing_of_it_is_trained(make: Make) -> None:
    config = make(4 + 1, max_failed_fraction=0.1)
    with pytest.raises(RunFailedError, match="1 of 6 rows"):
        run(config)
    folder = run_directory(config)
    assert [step_of(path) for path in checkpoints(folder)] == [1]
    assert {row["outcome"] for row in read_jsonl(folder / "ledger.jsonl") if row["step"] == 2} == {"failed"}


def test_rows_that_keep_a_completion_count_as_trained_however_few_may_fail(make: Make) -> None:
    counts, rows = second_step(run(make(4 + 3, max_failed_fraction=0)))
    assert (counts["completions/trained"], counts["completions/failed"]) == (5.0, 1.0)
    assert {row["outcome"] for row in rows} == {"trained"}
