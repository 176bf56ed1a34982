"""A run from its config to its last step: what is trained, in which order, by which policy."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl

import distillkit
from distillkit import RunConfig, RunResult
from distillkit.events import Evaluated, RunFinished, RunStarted, StepFinished
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent, ListSink
from distillkit.training_data import Batch, StepResult
from engine.loop.fake_runs import run

Make = Callable[..., RunConfig]


def test_the_student_gets_closer_to_its_teacher(fake_config: Make, held_out: str) -> None:
    result = run(fake_config(data={"eval_path": held_out, "epochs": 8}))
    before, after = result.eval["before"], result.eval["after"]
    assert after["reverse_kl"] < 0.5 * before["reverse_kl"]
    assert set(before["routes"]["t"]) >= {"reverse_kl", "reverse_kl_per_completion"}
    assert result.steps == 40
    assert [row["step"] for row in result.metrics] == list(range(41))
    assert result.metrics[-1]["eval/reverse_kl"] == after["reverse_kl"]


def test_a_teacher_equal_to_the_student_gives_a_gap_of_zero(fake_config: Make) -> None:
    result = run(fake_config(teachers=[{"model": "t", "scorer": {"name": "fake", "likes": ""}}]))
    assert all(row["train/reverse_kl"] == 0.0 for row in result.metrics)
    assert all(row["train/loss"] == 0.0 for row in result.metrics)


def test_a_run_is_a_function_of_config_data_and_seed(fake_config: Make) -> None:
    def numbers(**over: Any) -> list[dict[str, Any]]:
        result = run(fake_config(**over), overwrite=True)
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]

    first = numbers()
    assert first == numbers()
    assert first != numbers(seed=1)


def test_exactly_one_teacher_is_called_a_row(fake_config: Make, jsonl: Callable[..., str]) -> None:
    scorers = {name: FakeScorer() for name in ("x", "y", "z")}
    names = ["x", "y", "y", "z", "x", "y"]
    rows = [question(f"q{i}", teacher=name) for i, name in enumerate(names)]
    teachers = [{"model": "m", "route_value": name, "scorer": scorer} for name, scorer in scorers.items()]
    run(fake_config(data={"path": jsonl(rows)}, teachers=teachers))
    asked = {name: sorted(request.key for request in scorer.seen) for name, scorer in scorers.items()}
    all_keys = [key for keys in asked.values() for key in keys]
    assert len(all_keys) == len(set(all_keys)) == len(rows) * 2
    lines = {name: {int(key.row_id.split("-")[0]) for key in keys} for name, keys in asked.items()}
    assert lines == {"x": {1, 5}, "y": {2, 3, 6}, "z": {4}}


class Recorder(FakeStudent):
    """Notes what it trained, by step."""

    trained: ClassVar[list[list[Any]]] = []

    async def train(self, batch: Batch) -> StepResult:
        self.trained.append([datum.key for datum in batch.datums])
        return await super().train(batch)


def test_every_row_is_trained_once_an_epoch_in_a_new_order(fake_config: Make) -> None:
    Recorder.trained.clear()
    run(fake_config(student=Recorder(), data={"epochs": 2}, train={"prompt_groups_per_step": 4}))
    assert [len(step) for step in Recorder.trained] == [8, 8, 8, 8, 8]
    keys = [key for step in Recorder.trained for key in step]
    assert len(set(keys)) == 40
    first, second = ([key.row_id for key in keys if key.epoch == epoch] for epoch in (0, 1))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_step_s_trains_the_policy_of_step_s_minus_k(fake_config: Make, behind: int) -> None:
    versions: list[set[int]] = []

    class Versions(FakeScorer):
        """Notes which policies it scores."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            versions.append({request.rollout.policy_version for request in requests})
            async for score in super().score(requests):
                yield score

    config = fake_config(
        teachers=[{"model": "t", "scorer": Versions()}], train={"max_steps_off_policy": behind, "sample_every": 1}
    )
    result = run(config)
    trained = {record["step"]: record["policy_version"] for record in read_jsonl(result.run_dir / "samples.jsonl")}
    assert trained == {step: max(0, step - 1 - behind) for step in range(1, 6)}
    assert all(len(seen) == 1 for seen in versions)


def test_between_syncs_the_policy_that_was_published_last_samples(fake_config: Make, held_out: str) -> None:
    result = run(fake_config(data={"eval_path": held_out}, train={"weight_sync_interval": 2, "sample_every": 1}))
    samples = read_jsonl(result.run_dir / "samples.jsonl")
    trained = {sample["step"]: sample["policy_version"] for sample in samples if sample["split"] == "train"}
    assert trained == {1: 0, 2: 0, 3: 2, 4: 2, 5: 4}
    assert {s["policy_version"] for s in samples if s["split"] == "heldout" and s["step"] == 5} == {5}


def test_substeps_split_the_data_of_a_step(fake_config: Make) -> None:
    Recorder.trained.clear()
    result = run(fake_config(student=Recorder(), train={"num_substeps": 2, "max_steps": 1}))
    rows = [[key.row_id for key in part] for part in Recorder.trained]
    assert rows == [[rows[0][0]] * 2, [rows[1][0]] * 2]
    assert result.steps == 1


@pytest.mark.parametrize(
    ("rows", "substeps", "parts"),
    [(2, 3, [4, 4]), (3, 2, [4, 8]), (4, 2, [8, 8]), (5, 3, [4, 8, 8]), (1, 2, [4])],
)
def test_substeps_never_divide_the_completions_of_a_row(
    fake_config: Make, rows: int, substeps: int, parts: list[int]
) -> None:
    Recorder.trained.clear()
    train = {"num_substeps": substeps, "prompt_groups_per_step": rows, "max_steps": 1}
    run(fake_config(student=Recorder(), train=train, sampling={"completions_per_prompt": 4}))
    assert [len(part) for part in Recorder.trained] == parts
    rows_of = [{key.row_id for key in part} for part in Recorder.trained]
    assert sum(map(len, rows_of)) == len(set.union(*rows_of)) == rows


def test_sinks_hear_the_whole_story_in_order(fake_config: Make, held_out: str) -> None:
    sink = ListSink()
    run(fake_config(data={"eval_path": held_out}, sinks=[sink], train={"eval_every": 2}))
    kinds = [
        f"{event.stage} {event.step}" if isinstance(event, Evaluated) else type(event).__name__
        for event in sink.events
        if isinstance(event, RunStarted | StepFinished | Evaluated | RunFinished)
    ]
    step = "StepFinished"
    assert kinds == [
        "RunStarted",
        "before 0",
        *[step, step, "during 2", step, step, "during 4", step, "after 5"],
        "RunFinished",
    ]


def test_the_hosts_logger_is_left_as_it_was(fake_config: Make) -> None:
    log = logging.getLogger("distillkit")
    before = (log.level, log.propagate, list(log.handlers))
    run(fake_config())
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_it_runs_inside_a_running_event_loop(fake_config: Make) -> None:
    import asyncio

    async def notebook_cell() -> RunResult:
        return run(fake_config())

    assert asyncio.run(notebook_cell()).steps == 5


async def test_the_asynchronous_form(fake_config: Make) -> None:
    result = await distillkit.arun(fake_config(), plugins=[FakeStudent, FakeScorer])
    assert result.steps == 5
    assert result.adapter_path.is_dir()


def test_a_mapping_and_a_path_are_configs_too(fake_config: Make, tmp_path: Path) -> None:
    dump = fake_config().dump()
    assert distillkit.run(dump, plugins=[FakeStudent, FakeScorer]).steps == 5
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**dump, "name": "from-path"}))
    assert distillkit.run(path, plugins=[FakeStudent, FakeScorer]).steps == 5
    with pytest.raises(distillkit.DistillkitError, match="no such config file"):
        distillkit.run(tmp_path / "nowhere.yaml")
