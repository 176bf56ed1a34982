"""What a run leaves: its files, and what is in them."""

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import read_jsonl

import distillkit
from distillkit import EvalContext, Evaluator, RunConfig
from distillkit.events import EvalResult
from distillkit.records import Failure, Rollout
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.types import SampleRequest
from engine.loop.fake_runs import run

Make = Callable[..., RunConfig]


def test_what_a_run_leaves(fake_config: Make, held_out: str) -> None:
    result = run(fake_config(data={"eval_path": held_out}, train={"save_every": 2, "keep_last": 2}))
    files = {path.relative_to(result.run_dir).as_posix() for path in result.run_dir.rglob("*") if path.is_file()}
    assert files == {
        ".lock",
        "config.yaml",
        "metrics.jsonl",
        "ledger.jsonl",
        "samples.jsonl",
        "summary.json",
        "run.log",
        "adapter/fake.safetensors",
        *(f"checkpoints/step-{n}/{name}" for n in (4, 5) for name in ("engine.json", "plugins.json", "checksums.json")),
        *(f"checkpoints/step-{n}/student/fake.safetensors" for n in (4, 5)),
    }
    summary = json.loads((result.run_dir / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert (summary["steps"], summary["rows"], summary["completions"]) == (5, 10, 20)
    assert summary["trained_completions"] + summary["failed_completions"] == summary["completions"]
    assert 0 < summary["train_s"] < summary["wall_s"]
    for stage in ("before", "after"):
        evaluation = summary["eval"][stage]
        assert {"reverse_kl", "reverse_kl_per_completion"} <= set(evaluation)
        assert {"reverse_kl", "reverse_kl_per_completion"} <= set(evaluation["routes"]["t"])


def test_the_resolved_config_runs_again_to_the_same_numbers(fake_config: Make, tmp_path: Path) -> None:
    first = run(fake_config())
    again = distillkit.run(
        str(first.run_dir / "config.yaml").replace("\\", "/"), plugins=[FakeStudent, FakeScorer], overwrite=True
    )
    assert [row["train/reverse_kl"] for row in again.metrics] == [row["train/reverse_kl"] for row in first.metrics]


def test_samples_hold_what_one_wants_to_look_at(fake_config: Make) -> None:
    result = run(fake_config(train={"sample_every": 2, "samples_per_route": 1}))
    records = read_jsonl(result.run_dir / "samples.jsonl")
    assert [record["step"] for record in records] == [2, 4]
    record = records[0]
    assert record["prompt"].startswith("<|im_start|>user\nnumber")
    assert record["route"] == "t"
    assert record["policy_version"] == 1
    count = len(record["token_ids"])
    assert len(record["tokens"]) == len(record["student_logprobs"]) == len(record["teacher_logprobs"]["t"]) == count
    assert record["finish_reason"] in ("stop", "length")
    assert record["ids_proved"] == {"t": True}
    teacher, student = record["teacher_logprobs"]["t"], record["student_logprobs"]
    gaps = [theirs - ours for theirs, ours in zip(teacher, student, strict=True)]
    assert record["advantages"] == pytest.approx(gaps, abs=2e-5)
    assert record["weights"] == pytest.approx([record["weights"][0]] * count)


def test_samples_of_held_out_rows_say_when(fake_config: Make, held_out: str) -> None:
    result = run(fake_config(data={"eval_path": held_out}, train={"eval_every": 2, "samples_per_route": 1}))
    records = [record for record in read_jsonl(result.run_dir / "samples.jsonl") if record["split"] == "heldout"]
    assert [(record["step"], record["stage"]) for record in records] == [
        (0, "before"),
        (2, "during"),
        (4, "during"),
        (5, "after"),
    ]
    assert not any("advantages" in record for record in records)


def test_training_time_counts_neither_evaluations_nor_saves(
    fake_config: Make, held_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Timed(FakeStudent):
        """Takes a second to sample for a step, and many to be saved; nothing else takes any time."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            clock[0] += 1.0
            async for rollout in super().sample(requests):
                yield rollout

        async def save(self, path: Path) -> None:
            clock[0] += 1000.0
            await super().save(path)

    config = {"student": Timed(), "data": {"eval_path": held_out}}
    for every in (0, 1):
        train = {"eval_every": every, "save_every": 2 * every}
        summary = run(fake_config(**config, name=f"every-{every}", train=train)).summary
        assert summary["train_s"] == 5.0
    assert clock[0] > 2000.0  # it was saved, too


def test_numbers_that_are_numpys_are_written_as_json(fake_config: Make, held_out: str) -> None:
    class Odd(Evaluator):
        """Finds numpy's numbers."""

        name: ClassVar[str] = "odd"

        async def evaluate(self, context: EvalContext) -> EvalResult:
            return EvalResult({"x": np.float32(0.5)})  # type: ignore[dict-item]

    result = run(fake_config(data={"eval_path": held_out}, evaluators=[Odd()]))
    assert result.metrics[0]["eval/x"] == 0.5
    assert json.loads((result.run_dir / "summary.json").read_text())["eval"]["after"]["x"] == 0.5


def test_what_a_plugin_measures_of_itself_never_hides_the_engines_own_metric(fake_config: Make) -> None:
    class Boasting(FakeScorer):
        """Measures what is not its to measure."""

        name: ClassVar[str] = "boasting"

        def metrics(self) -> dict[str, float]:
            return {"train/reverse_kl": -1.0, "boasting/asked": 1.0}

    teachers = [{"model": "t", "scorer": {"name": "boasting", "likes": "abc"}}]
    values = fake_config().dump()
    values["teachers"] = teachers
    result = distillkit.run(values, plugins=[FakeStudent, FakeScorer, Boasting])
    assert result.metrics[-1]["boasting/asked"] == 1.0
    assert result.metrics[-1]["train/reverse_kl"] != -1.0
