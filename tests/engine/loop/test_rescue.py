"""A run that fails between two saves loses no step that was complete, and goes on as if it had never failed."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from pydantic import PrivateAttr

from distillkit import EvalContext, Evaluator, RunConfig, RunResult, run
from distillkit.errors import RunFailedError
from distillkit.events import EvalResult
from distillkit.records import Failure, Rollout, Score, ScoreRequest, Weights
from distillkit.run_directory.checkpoint import checkpoints, step_of
from distillkit.run_directory.directory import run_directory
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit.types import SampleRequest
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]
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


class Looking(Evaluator):
    """Scores the held-out rows."""

    name: ClassVar[str] = "looking"
    _fuse: Fuse = PrivateAttr(default_factory=Fuse)

    async def evaluate(self, context: EvalContext) -> EvalResult:
        scored = await context.scored()
        self._fuse.use()
        return EvalResult({"logprob": float(scored[0].scores["t"].logprobs.sum())})


@pytest.fixture
def make(fake_config: Make, jsonl: Callable[..., str]) -> Callable[..., RunConfig]:
    rows = jsonl([question(f"row {i}") for i in range(24)], "rescue.jsonl")
    held_out = jsonl([question("held out")], "rescue-eval.jsonl")

    def config(name: str, fuses: dict[str, Fuse] | None = None, **train: Any) -> RunConfig:
        found = fuses or {}
        student, teacher, loss, evaluator = Student(learning_rate=5.0), Teacher(likes="abc"), Loss(), Looking()
        student._fuses = found
        for plugin, what in ((teacher, "score"), (loss, "batch"), (evaluator, "evaluate")):
            plugin._fuse = found.get(what, plugin._fuse)
        teacher._dead = found.get("dead", teacher._dead)
        return fake_config(
            name=name,
            data={"path": rows, "eval_path": held_out},
            student=student,
            teachers=[{"model": "t", "scorer": teacher}],
            loss=loss,
            evaluators=[evaluator],
            sampling={"completions_per_prompt": 3, "max_completion_tokens": 12},
            train={"prompt_groups_per_step": 2, "max_failed_fraction": 0.2, "eval_every": 2, **train},
        )

    return config


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


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize(
    ("what", "at", "saved"),
    [
        ("score", 20, None),  # while it samples ahead, so how far it came is a matter of that
        ("batch", DIES_AT, 4),
        ("sync", 1 + DIES_AT, DIES_AT),  # the first is the one before training
        ("evaluate", 3, 4),  # before training, after step 2, after step 4
    ],
)
def test_the_last_good_step_is_saved_and_a_resume_is_the_run_that_never_failed(
    make: Make, what: str, at: int, saved: int | None, ahead: int
) -> None:
    whole = run(make("whole", max_steps_off_policy=ahead))
    steps = fail(make("parts", {what: Fuse(at)}, max_steps_off_policy=ahead))
    assert len(steps) == 1
    assert saved is None or steps == [saved]
    parts = run(make("parts", max_steps_off_policy=ahead), resume=True)
    assert content(parts) == content(whole)


@pytest.mark.parametrize("ahead", [0, 2])
def test_what_is_left_of_a_window_when_a_teacher_dies_is_not_trained(make: Make, ahead: int) -> None:
    whole = run(make("whole", max_steps_off_policy=ahead))
    config = make("parts", {"dead": Fuse(20, for_good=True)}, max_steps_off_policy=ahead)
    (step,) = fail(config, RunFailedError)
    folder = run_directory(config)
    trained = {entry["step"] for entry in read_jsonl(folder / "ledger.jsonl") if entry["outcome"] == "trained"}
    assert max(trained) == step
    assert f"step {step}, the last good one, is saved" in (folder / "run.log").read_text()
    assert content(run(make("parts", max_steps_off_policy=ahead), resume=True)) == content(whole)


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_teacher_that_dies_between_two_windows_costs_no_row_however_many_may_fail(make: Make, ahead: int) -> None:
    class Gone(Teacher):
        """Scores nothing of what the policy of step 3, or a later one, has sampled."""

        name: ClassVar[str] = "fused"

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            async for outcome in super().score(requests):
                late = outcome.request.rollout.policy_version >= 3
                yield Failure(outcome.request, "connection refused", retryable=True) if late else outcome

    whole = run(make("whole", max_steps_off_policy=ahead, eval_every=0))
    config = make("parts", max_steps_off_policy=ahead, eval_every=0, max_failed_fraction=0.9)
    scorer = Gone(likes="abc").bind(config.teachers[0].teacher)
    teachers = (config.teachers[0].model_copy(update={"scorer": scorer}),)
    assert fail(config.model_copy(update={"teachers": teachers}), RunFailedError) == [3 + ahead]
    summary = json.loads((run_directory(config) / "summary.json").read_text())
    expected = f"step {4 + ahead}: all 6 completions failed, also when tried once more"
    assert expected in summary["error"]
    assert "connection refused" in summary["error"]
    assert content(run(make("parts", max_steps_off_policy=ahead, eval_every=0), resume=True)) == content(whole)


def test_a_save_that_waited_for_a_dead_teacher_is_made_again_so_that_a_resume_asks_once_more(make: Make) -> None:
    options = {"max_steps_off_policy": 2, "save_every": 1, "keep_last": 1, "eval_every": 0}
    config = make("parts", {"dead": Fuse(20, for_good=True)}, **options)
    (step,) = fail(config, RunFailedError)
    assert f"step {step}, the last good one, is saved" in (run_directory(config) / "run.log").read_text()
    entries = read_jsonl(run(make("parts", **options), resume=True).run_dir / "ledger.jsonl")
    late = [each for entry in entries if entry["step"] > step for each in entry["completions"]]
    assert late
    assert "no answer" not in {each.get("reason") for each in late}


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_resumed_run_that_saves_before_it_trains_keeps_what_was_sampled_ahead(make: Make, ahead: int) -> None:
    whole = run(make("whole", max_steps_off_policy=ahead))
    assert fail(make("parts", {"evaluate": Fuse(3)}, max_steps_off_policy=ahead)) == [4]
    with pytest.raises(ZeroDivisionError):  # step 4 is evaluated and saved again, and step 5 fails
        run(make("parts", {"batch": Fuse(1)}, max_steps_off_policy=ahead, save_every=4), resume=True)
    assert content(run(make("parts", max_steps_off_policy=ahead), resume=True)) == content(whole)


def test_a_step_that_may_be_half_trained_is_not_saved(make: Make) -> None:
    config = make("parts", {"train": Fuse(DIES_AT)})
    assert fail(config) == []
    log = (run_directory(config) / "run.log").read_text()
    assert "step 4 is not saved: the weights may have changed since" in log


def test_between_two_publishes_nothing_is_saved_that_would_go_on_otherwise(make: Make) -> None:
    config = make("parts", {"batch": Fuse(DIES_AT)}, weight_sync_interval=3)
    assert fail(config) == []
    assert "step 4 is not saved: it lies between two publishes" in (run_directory(config) / "run.log").read_text()
    again = make("again", {"batch": Fuse(DIES_AT - 1)}, weight_sync_interval=3)
    assert fail(again) == [3]
    whole = run(make("whole", weight_sync_interval=3))
    assert content(run(make("again", weight_sync_interval=3), resume=True)) == content(whole)


def test_what_fails_while_it_is_saved_does_not_hide_why_the_run_ends_nor_harm_what_was_saved(make: Make) -> None:
    config = make("parts", {"batch": Fuse(DIES_AT), "save": Fuse(2, for_good=True)}, save_every=3)
    assert fail(config) == [3]
    summary = json.loads((run_directory(config) / "summary.json").read_text())
    assert summary["error"].startswith("ZeroDivisionError: the fuse has blown (raised by loss")
    log = (run_directory(config) / "run.log").read_text()
    assert "step 4 is not saved: ZeroDivisionError: the fuse has blown" in log
    assert content(run(make("parts"), resume=True)) == content(run(make("whole")))


def test_what_could_not_be_saved_is_not_tried_again(make: Make) -> None:
    save = Fuse(1)
    assert fail(make("parts", {"save": save}, save_every=3)) == []
    assert save.calls == 1


def test_what_was_just_saved_is_not_saved_again(make: Make) -> None:
    save = Fuse()
    assert fail(make("parts", {"batch": Fuse(DIES_AT), "save": save}, save_every=2)) == [2, 4]
    assert save.calls == 2


def test_an_interrupt_in_python_keeps_the_steps_that_are_complete(make: Make) -> None:
    asked: list[int] = []

    class Interrupted(Teacher):
        """Is interrupted while it scores, and would take a minute."""

        name: ClassVar[str] = "fused"

        async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
            if requests[0].rollout.policy_version == 3:
                if not asked:
                    asked.append(1)
                    signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)
            async for outcome in super().score(requests):
                yield outcome

    config = make("parts")
    scorer = Interrupted(likes="abc")
    teachers = (config.teachers[0].model_copy(update={"scorer": scorer.bind(config.teachers[0].teacher)}),)
    assert fail(config.model_copy(update={"teachers": teachers}), KeyboardInterrupt) == [3]
    assert content(run(make("parts"), resume=True)) == content(run(make("whole")))


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("ahead", [0, 2])
def test_no_number_depends_on_when_a_checkpoint_is_due_by_time(make: Make, interval: int, ahead: int) -> None:
    options = {"weight_sync_interval": interval, "max_steps_off_policy": ahead, "keep_last": 20}
    whole = run(make("whole", save_every_minutes=0, **options))
    assert [step_of(path) for path in checkpoints(whole.run_dir)] == [12]
    often = run(make("often", save_every_minutes=1e-9, **options))
    assert [step_of(path) for path in checkpoints(often.run_dir)] == list(range(interval, 13, interval))
    assert content(often) == content(whole)


def test_by_default_a_checkpoint_is_due_after_ten_minutes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from distillkit.loop import checkpointer

    now = [0.0]

    class Watch:
        """A clock that a step of the run moves by four minutes."""

        @staticmethod
        def monotonic() -> float:
            return now[0]

    class Slow(Student):
        """Takes four minutes a step."""

        name: ClassVar[str] = "fused"

        async def train(self, batch: Batch) -> StepResult:
            now[0] += 240
            return await super().train(batch)

    monkeypatch.setattr(checkpointer, "time", Watch)
    config = make("slow", max_steps=8, keep_last=20).model_copy(update={"student": Slow()})
    assert [step_of(path) for path in checkpoints(run(config).run_dir)] == [3, 6, 8]
