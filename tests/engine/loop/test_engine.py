import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import question, read_jsonl

import distillkit
from distillkit import EvalContext, Evaluator, RunConfig, RunResult
from distillkit.errors import InputError, PluginError, RunFailedError
from distillkit.events import EvalResult, Evaluated, Event, RowValue, RunFinished, RunStarted, StepFinished
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.run_directory.directory import claim_directory
from distillkit.run_directory.run_start import RunStart
from distillkit.testing import FakeScorer, FakeStudent, ListSink
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest

Make = Callable[..., RunConfig]


def run(config: RunConfig, **options: Any) -> RunResult:
    return distillkit.run(config, plugins=[FakeStudent, FakeScorer], **options)


@pytest.fixture
def held_out(jsonl: Callable[..., str]) -> str:
    return jsonl([question(f"held out {i}") for i in range(6)], "heldout.jsonl")


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


class Flaky(FakeScorer):
    """Fails some rows."""

    lines: ClassVar[tuple[int, ...]] = (3,)
    samples: ClassVar[tuple[int, ...]] = (0, 1)

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for score in super().score(requests):
            key = score.request.key
            if int(key.row_id.split("-")[0]) in self.lines and key.sample in self.samples:
                yield Failure(score.request, "the server was busy", retryable=True)
            else:
                yield score


def flaky(**attributes: Any) -> FakeScorer:
    return type("Flaky", (Flaky,), {"__doc__": "Fails.", **attributes})()


def test_what_failed_is_in_the_ledger_and_the_rest_is_trained(fake_config: Make) -> None:
    result = run(fake_config(teachers=[{"model": "t", "scorer": flaky(samples=(1,))}]))
    assert (result.summary["failed_completions"], result.summary["trained_completions"]) == (1, 19)
    entry = next(e for e in read_jsonl(result.run_dir / "ledger.jsonl") if e["row_id"].startswith("3-"))
    assert entry["outcome"] == "trained"
    assert [one["outcome"] for one in entry["completions"]] == ["trained", "failed"]


def test_past_max_failed_fraction_the_run_fails_and_says_why(fake_config: Make) -> None:
    teachers = [{"model": "t", "scorer": flaky(lines=(3, 4, 5))}]
    with pytest.raises(RunFailedError, match=r"rows failed, more than .* the server was busy"):
        run(fake_config(teachers=teachers))
    summary = json.loads((Path(fake_config().log_path.replace("{name}", "fake")) / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "the server was busy" in summary["error"]


def test_a_run_in_which_nothing_trained_never_completes(fake_config: Make) -> None:
    teachers = [{"model": "t", "scorer": flaky(lines=tuple(range(1, 11)))}]
    with pytest.raises(RunFailedError, match="nothing was trained"):
        run(fake_config(teachers=teachers, train={"max_failed_fraction": 1.0}))


def test_an_exception_of_a_plugin_ends_the_run_and_everything_is_closed(fake_config: Make) -> None:
    closed: list[str] = []

    class Broken(FakeScorer):
        """A bug."""

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            raise ZeroDivisionError("a bug")
            yield

        async def close(self) -> None:
            closed.append("scorer")

    class Closing(FakeStudent):
        """Notes when it is closed."""

        async def close(self) -> None:
            closed.append("student")

    sink = ListSink()
    with pytest.raises(ZeroDivisionError):
        run(fake_config(teachers=[{"model": "t", "scorer": Broken()}], student=Closing(), sinks=[sink]))
    assert closed == ["scorer", "student"]
    assert isinstance(sink.events[-1], RunFinished)
    assert "ZeroDivisionError: a bug" in str(sink.events[-1].error)


class BadSink(ListSink):
    """Raises at every step."""

    name: ClassVar[str] = "bad"

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished):
            raise RuntimeError("tracker is down")


def test_a_sink_that_fails_is_counted_and_ends_nothing(fake_config: Make) -> None:
    good = ListSink()
    result = run(fake_config(sinks=[BadSink(), good]))
    assert result.summary["sink_errors"] == {"bad": 5}
    assert "tracker is down" in (result.run_dir / "run.log").read_text()
    assert sum(isinstance(event, StepFinished) for event in good.events) == 5


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


def test_a_sampler_that_answers_wrongly_is_named(fake_config: Make) -> None:
    class Half(FakeStudent):
        """Answers half."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for rollout in super().sample(requests[::2]):
                yield rollout

    with pytest.raises(PluginError, match="Half gave no outcome for 2 of 4 requests"):
        run(fake_config(student=Half()))


def test_ids_that_the_tokenizer_does_not_have_are_no_completion(fake_config: Make, held_out: str) -> None:
    class Wide(FakeStudent):
        """Has more rows than its tokenizer has tokens, and draws one in its first step, and of a held-out row."""

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            async for one in super().sample(requests):
                assert isinstance(one, Rollout)
                ids = np.append(one.token_ids[:-1], 300)
                yield replace(one, token_ids=ids) if one.policy_version == 0 and not one.key.sample else one

    over = {"data": {"eval_path": held_out}, "evaluators": ["reverse_kl"], "student": Wide()}
    with pytest.raises(RunFailedError, match=r"token \d+ is id 300; the student's tokenizer has the ids 0 to 257"):
        run(fake_config(**over))
    result = run(fake_config(student=Wide()), overwrite=True)
    lost = [one for entry in read_jsonl(result.run_dir / "ledger.jsonl") for one in entry["completions"][:1]]
    assert [one["outcome"] for one in lost] == ["failed"] * 2 + ["trained"] * 8
    assert "is id 300" in lost[0]["reason"]


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


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (EvalResult({"y": math.nan}), "'y' to be nan"),
        (EvalResult({"y": 1.0}, {"t": {"z": -math.inf}}), "'z' to be -inf"),
        (EvalResult({"y": 1.0}, {}, {"y": {"1-a": RowValue(math.inf)}}), "'by_row of y' to be inf"),
        (EvalResult({"y": 1.0}, {}, {"y": {"1-a": RowValue(1.0, math.nan)}}), "'by_row of y' to be nan"),
    ],
)
def test_an_evaluator_that_finds_no_finite_number_is_named(
    fake_config: Make, held_out: str, found: EvalResult, message: str
) -> None:
    class Dividing(Evaluator):
        """Divides by nothing."""

        name: ClassVar[str] = "dividing"

        async def evaluate(self, context: EvalContext) -> EvalResult:
            return found

    wanted = rf"evaluator 'dividing' \(.*Dividing\): evaluate\(\) found {message}, which is no finite number"
    with pytest.raises(PluginError, match=wanted):
        run(fake_config(data={"eval_path": held_out}, evaluators=[Dividing()]))


def test_the_hosts_logger_is_left_as_it_was(fake_config: Make) -> None:
    log = logging.getLogger("distillkit")
    before = (log.level, log.propagate, list(log.handlers))
    run(fake_config())
    assert (log.level, log.propagate, list(log.handlers)) == before


def test_a_run_that_cannot_be_opened_leaves_its_reason(fake_config: Make) -> None:
    class OutOfMemory(FakeStudent):
        """Cannot be opened."""

        async def open(self, run: Any) -> None:
            raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError) as caught:
        run(fake_config(student=OutOfMemory()))
    assert "raised by student 'fake'" in caught.value.__notes__[0]
    directory = Path(fake_config().log_path.replace("{name}", "fake"))
    assert "CUDA out of memory" in (directory / "run.log").read_text()
    assert "CUDA out of memory" in json.loads((directory / "summary.json").read_text())["error"]


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
