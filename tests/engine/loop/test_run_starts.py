"""In which directory a run may start, and from which one it goes on."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import read_jsonl

import distillkit
from distillkit import RunConfig
from distillkit.errors import InputError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.run_directory.directory import claim_directory
from distillkit.run_directory.run_start import RunStart
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult
from engine.loop.fake_runs import run

Make = Callable[..., RunConfig]


def test_a_directory_that_holds_a_run_is_not_written_over(fake_config: Make) -> None:
    first = run(fake_config())
    with pytest.raises(InputError, match=r"already holds a run. Go on with it by --resume, replace it by --overwrite"):
        run(fake_config())
    before = (first.run_dir / "metrics.jsonl").read_text()
    assert len(read_jsonl(run(fake_config(), overwrite=True).run_dir / "metrics.jsonl")) == len(before.splitlines())


def test_a_run_that_failed_while_loading_is_in_no_ones_way(fake_config: Make) -> None:
    class Unreachable(FakeStudent):
        """Cannot be opened."""

        async def open(self, run: Any) -> None:
            raise InputError("the weights are not there")

    with pytest.raises(InputError, match="the weights are not there"):
        run(fake_config(student=Unreachable()))
    assert run(fake_config()).steps == 5


def test_a_directory_with_other_files_is_left_alone(fake_config: Make, tmp_path: Path) -> None:
    (tmp_path / "runs" / "fake").mkdir(parents=True)
    (tmp_path / "runs" / "fake" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds files that are no run"):
        run(fake_config(), overwrite=True)


def test_a_checkpoint_brings_back_weights_counters_and_data(fake_config: Make) -> None:
    whole = run(fake_config(name="whole"))
    run(fake_config(name="parts", train={"max_steps": 3}))
    resumed = run(fake_config(name="parts"), resume=True)
    steps = {row["step"]: row["train/reverse_kl"] for row in whole.metrics}
    assert {row["step"]: row["train/reverse_kl"] for row in resumed.metrics} == steps
    assert resumed.summary["completions"] == whole.summary["completions"]
    assert (resumed.run_dir / "adapter/fake.safetensors").read_bytes() == (
        whole.run_dir / "adapter/fake.safetensors"
    ).read_bytes()


class Fragile(FakeStudent):
    """Cannot write its final weights at the first try."""

    broken: ClassVar[bool] = True

    async def export(self, run_dir: Path) -> Path:
        if Fragile.broken:
            raise OSError("no space left on device")
        return await super().export(run_dir)


def test_a_run_that_died_after_its_last_step_is_finished_by_a_resume(fake_config: Make, held_out: str) -> None:
    config = {"student": Fragile(learning_rate=30.0), "data": {"eval_path": held_out}}
    Fragile.broken = True
    with pytest.raises(OSError, match="no space left"):
        run(fake_config(**config))
    Fragile.broken = False
    whole = run(fake_config(**{**config, "name": "whole", "student": {"name": "fake", "learning_rate": 30.0}}))
    resumed = run(fake_config(**{**config, "student": Fragile(learning_rate=30.0)}), resume=True)
    assert resumed.eval["after"] == whole.eval["after"]
    assert [row["step"] for row in resumed.metrics] == [row["step"] for row in whole.metrics]
    assert resumed.metrics[-1]["eval/reverse_kl"] == whole.metrics[-1]["eval/reverse_kl"]
    assert resumed.metrics[-1]["train/reverse_kl"] == whole.metrics[-1]["train/reverse_kl"]


def test_a_resumed_run_writes_each_step_once(fake_config: Make) -> None:
    class Dying(FakeScorer):
        """Fails at the fourth step, once the checkpoint of the second is written."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            if requests[0].rollout.policy_version == 3:
                raise ZeroDivisionError("a bug")
            async for score in super().score(requests):
                yield score

    teachers = [{"model": "t", "scorer": Dying(likes="abc")}]
    with pytest.raises(ZeroDivisionError):
        run(fake_config(teachers=teachers, train={"save_every": 2}))
    directory = Path(fake_config().log_path.replace("{name}", "fake"))
    entries = read_jsonl(directory / "ledger.jsonl")
    assert [entry["outcome"] for entry in entries] == ["trained"] * 6 + ["failed"] * 2
    assert "the run ended: ZeroDivisionError: a bug (raised by scorer 'fake'" in entries[-1]["completions"][0]["reason"]
    for name in ("metrics.jsonl", "ledger.jsonl"):
        with (directory / name).open("a", encoding="utf-8") as file:
            file.write('{"step": 4, "cut o')
    resumed = run(fake_config(train={"save_every": 2}), resume=True)
    assert [row["step"] for row in resumed.metrics] == [1, 2, 3, 4, 5]
    rows = [entry["row_id"] for entry in read_jsonl(directory / "ledger.jsonl")]
    assert len(rows) == len(set(rows)) == 10
    assert {sample["step"] for sample in read_jsonl(directory / "samples.jsonl")} == {1, 2, 3, 4, 5}


def test_a_second_process_in_the_same_directory_is_refused(fake_config: Make) -> None:
    first = run(fake_config())
    with (
        claim_directory(first.run_dir, RunStart(resume=True)),
        pytest.raises(InputError, match="another process is running"),
    ):
        run(fake_config(), overwrite=True)
    assert (first.run_dir / "summary.json").is_file()


def test_going_on_and_starting_over_exclude_each_other(fake_config: Make) -> None:
    run(fake_config(train={"max_steps": 2}))
    with pytest.raises(InputError, match="resume and overwrite exclude each other"):
        run(fake_config(), resume=True, overwrite=True)


async def test_an_interrupted_run_is_no_failed_one(fake_config: Make) -> None:
    class Slow(FakeStudent):
        """Never ends its step."""

        async def train(self, batch: Batch) -> StepResult:
            started.set()
            await asyncio.sleep(60)
            return StepResult({})

    started = asyncio.Event()
    task = asyncio.create_task(distillkit.arun(fake_config(student=Slow()), plugins=[FakeStudent, FakeScorer]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    directory = Path(fake_config().log_path.replace("{name}", "fake"))
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", None)
    assert "Traceback" not in (directory / "run.log").read_text()
    entries = read_jsonl(directory / "ledger.jsonl")
    assert {one["reason"] for entry in entries for one in entry["completions"]} == {"the run ended: interrupted"}


def test_nothing_to_resume_and_complete_runs_are_said(fake_config: Make) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        run(fake_config(), resume=True)
    run(fake_config())
    with pytest.raises(InputError, match=r"this run is complete; raise train\.max_steps"):
        run(fake_config(), resume=True)
