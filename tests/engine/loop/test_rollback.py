"""`guards.action: rollback`: the weights go back to before the collapse, rows and steps go on, and a resume knows."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from pydantic import PrivateAttr

from distillkit import RunConfig, RunResult, run
from distillkit.config.sections import GuardsConfig
from distillkit.errors import InputError, RunFailedError
from distillkit.loop.guards import ROLLED_BACK, Guards, Undone
from distillkit.loop.rollback import newest_before, undone_steps
from distillkit.records import Batch, Failure, Rollout, Score, ScoreRequest, StepResult
from distillkit.run_directory import checkpoint
from distillkit.run_directory.checkpoint import checkpoints, step_of, surplus
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.types import SampleRequest
from distillkit_builtin.fireworks.student import FireworksStudent
from distillkit_builtin.local.student import LocalStudent
from engine.run_directory.test_resume import Power, content

Make = Callable[..., RunConfig]
GUARDS = {"action": "rollback", "window": 3, "reverse_kl_rise": None, "repetition_rise": None}
ROWS, SIZE, POISON = 46, 2, 16
"""Rows, rows a step, and the line whose row poisons the student: step 8."""


class Poisoned(FakeStudent):
    """Says but one character once it has trained on a row of `poison`; may die when it is told to."""

    name: ClassVar[str] = "poisoned"
    _poison: tuple[int, ...] = PrivateAttr(())
    _power: Power = PrivateAttr(default_factory=Power)

    async def train(self, batch: Batch) -> StepResult:
        self._power.step()
        result = await super().train(batch)
        if any(int(datum.key.row_id.partition("-")[0]) in self._poison for datum in batch.datums):
            self._logits = self._logits.copy()
            self._logits[ord("z")] += 50
        return result


class WindowTrainer(FakeScorer):
    """A teacher that has a state from its first sync on, and counts how often it was brought back."""

    name: ClassVar[str] = "learning"
    _synced: int = PrivateAttr(0)
    _restored: list[int] = PrivateAttr(default_factory=list)

    async def on_sync(self, version: int) -> None:
        self._synced += 1

    def state(self) -> dict[str, Any]:
        return {"synced": self._synced}

    def restore(self, state: Any, tensors: Any) -> None:
        self._restored.append(self._synced)
        self._synced = state["synced"]

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for outcome in super().score(requests):
            assert isinstance(outcome, Score)
            yield Score(outcome.request, outcome.logprobs - 0.001 * self._synced, outcome.echoed_ids)


@pytest.fixture
def make(fake_config: Make, jsonl: Callable[..., str]) -> Make:
    rows = jsonl([question(f"row {i}") for i in range(ROWS)], "rollback.jsonl")

    def config(
        name: str = "back",
        power: Power | None = None,
        poison: tuple[int, ...] = (POISON,),
        guards: dict[str, Any] | None = None,
        scorer: FakeScorer | None = None,
        **train: Any,
    ) -> RunConfig:
        student = Poisoned(learning_rate=1.0)
        student._poison, student._power = poison, power or Power()
        return fake_config(
            name=name,
            data={"path": rows, "shuffle": False},
            student=student,
            teachers=[{"model": "t", "scorer": scorer or WindowTrainer(likes="abc")}],
            guards={**GUARDS, **(guards or {})},
            train={"prompt_groups_per_step": SIZE, "save_every": 1, **train},
        )

    return config


def rollback_of(result: RunResult) -> tuple[int, int]:
    """After which step a run went back, and to which: once."""
    ((at, to),) = [(row["step"], row[ROLLED_BACK]) for row in result.metrics if ROLLED_BACK in row]
    assert isinstance(at, int)
    assert isinstance(to, float)
    return at, int(to)


def test_the_weights_go_back_and_rows_and_steps_go_on(make: Make) -> None:
    result = run(make())
    assert result.steps == ROWS // SIZE
    assert [row["step"] for row in result.metrics] == list(range(1, result.steps + 1))
    at, to = rollback_of(result)
    assert (at, to) == (11, 7)  # the completions of steps 9 to 11 are those of a student that trained step 8
    entropy = {row["step"]: float(str(row["train/sampling_nll"])) for row in result.metrics}
    assert entropy[at] < 0.1 < 4 < entropy[at + 1]
    assert all(value > 4 for step, value in entropy.items() if step > at)
    entries = read_jsonl(result.run_dir / "ledger.jsonl")
    assert [entry["outcome"] for entry in entries] == ["trained"] * ROWS
    assert len({entry["row_id"] for entry in entries}) == ROWS
    assert result.summary["rows"] == ROWS
    assert (result.summary["rollbacks"], result.summary["undone_steps"]) == (1, 4)
    log = (result.run_dir / "run.log").read_text()
    assert "hardly any entropy is left" in log
    assert f"went back to the weights of step {to} ({result.run_dir / f'checkpoints/step-{to}'})" in log
    assert "(rollback 1 of at most 2)" in log


@pytest.mark.parametrize(
    "train",
    [{}, {"save_every": 3}, {"max_steps_off_policy": 2}, {"weight_sync_interval": 4, "save_every": 2}],
    ids=str,
)
def test_a_run_that_died_around_a_rollback_is_the_run_that_never_did(make: Make, train: dict[str, int]) -> None:
    whole = run(make("whole", **train))
    at, _ = rollback_of(whole)
    power = Power(at, at + 1, at + 4)  # in the step that goes back, in the next one, and once more
    for resume in (False, True, True):
        with pytest.raises(ZeroDivisionError):
            run(make("parts", power, **train), resume=resume)
    parts = run(make("parts", power, **train), resume=True)
    assert not power.after
    assert content(parts) == content(whole)
    assert parts.summary["rollbacks"] == 1


def folder(make: Make, name: str) -> Path:
    return Path(make(name).log_path.replace("{name}", name))


def test_a_checkpoint_is_written_at_once(make: Make) -> None:
    result = run(make(save_every=3, keep_last=99))
    at, to = rollback_of(result)
    saved = {step_of(path): path / "student/fake.safetensors" for path in checkpoints(result.run_dir)}
    assert at % 3
    assert saved[at].read_bytes() == saved[to].read_bytes()


def test_a_kill_between_the_rollback_and_its_checkpoint_goes_back_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(make("whole"))
    at, _ = rollback_of(whole)
    seal = checkpoint._seal

    def fail(aside: Path, final: Path) -> None:
        if final.name == f"step-{at}":
            raise ZeroDivisionError
        seal(aside, final)

    monkeypatch.setattr(checkpoint, "_seal", fail)
    with pytest.raises(ZeroDivisionError):
        run(make("parts"))
    monkeypatch.setattr(checkpoint, "_seal", seal)
    assert content(run(make("parts"), resume=True)) == content(whole)


def test_plugins_that_learn_go_back_too(make: Make) -> None:
    scorer = WindowTrainer(likes="abc")
    result = run(make(scorer=scorer, weight_sync_interval=1))
    at, to = rollback_of(result)
    assert scorer._restored == [at]  # version 0 and those of the steps before; that of `at` was not published yet
    assert scorer._synced == (to + 1) + 1 + (result.steps - at)


def test_a_plugin_that_had_nothing_to_keep_at_the_checkpoint_hears_of_that(make: Make) -> None:
    class Late(WindowTrainer):
        """Has a state from its tenth sync on."""

        _heard: list[Any] = PrivateAttr(default_factory=list)

        def state(self) -> dict[str, Any]:
            return {"synced": self._synced} if self._synced > 9 else {}

        def restore(self, state: Any, tensors: Any) -> None:
            self._heard.append(state)

    scorer = Late(likes="abc")
    run(make(scorer=scorer))
    assert scorer._heard == [{}]


def test_what_the_collapsed_policy_drew_ahead_is_drawn_anew(make: Make) -> None:
    result = run(make(max_steps_off_policy=2, sample_every=1))
    at, _ = rollback_of(result)
    versions = {one["step"]: one["policy_version"] for one in read_jsonl(result.run_dir / "samples.jsonl")}
    assert [versions[at + ahead] for ahead in (0, 1, 2, 3, 4)] == [at - 3, at, at, at, at + 1]
    assert result.summary["rows"] == ROWS


def test_nothing_is_drawn_while_the_weights_go_back(make: Make) -> None:
    class Slow(Poisoned):
        """Takes its time to draw."""

        _drawing: int = PrivateAttr(0)
        _at_load: list[int] = PrivateAttr(default_factory=list)

        async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
            self._drawing += 1
            try:
                await asyncio.sleep(0.02)
                async for outcome in super().sample(requests):
                    yield outcome
            finally:
                self._drawing -= 1

        async def load(self, path: Path) -> None:
            self._at_load.append(self._drawing)
            await super().load(path)

    student = Slow(learning_rate=1.0)
    student._poison = (POISON,)
    config = make(max_steps_off_policy=1, save_every=4)
    run(config.model_copy(update={"student": student}))
    assert student._at_load == [0]


async def test_a_checkpoint_of_undone_steps_is_none_to_go_back_to(make: Make) -> None:
    result = run(make(poison=(), max_steps=12, keep_last=12))
    guards = Guards(GuardsConfig(), lambda text: None, undone=[Undone(3, 8)])

    async def at_most(step: int) -> int | None:
        path = await newest_before(result.run_dir, step, guards)
        return None if path is None else step_of(path)

    assert [await at_most(step) for step in (11, 9, 8, 7, 2)] == [11, 9, 8, 8, 8]  # at least that of the rollback
    shutil.rmtree(result.run_dir / "checkpoints/step-8")
    assert [await at_most(step) for step in (9, 8, 7, 4, 3, 2, 0)] == [9, 3, 3, 3, 3, 2, None]


def test_after_so_many_rollbacks_the_run_stops_with_what_the_guard_said(make: Make) -> None:
    poison = tuple(range(POISON, ROWS + 1))
    with pytest.raises(RunFailedError) as caught:
        run(make(poison=poison))
    assert "hardly any entropy is left" in str(caught.value)
    assert "went back already as often as guards.max_rollbacks=2 allows; a checkpoint was written" in str(caught.value)
    summary = json.loads((folder(make, "back") / "summary.json").read_text())
    assert (summary["status"], summary["rollbacks"]) == ("failed", 2)
    backs = [row for row in read_jsonl(folder(make, "back") / "metrics.jsonl") if ROLLED_BACK in row]
    assert len(backs) == 2
    assert backs[1]["step"] >= backs[0]["step"] + 3  # the window was cleared
    assert backs[1][ROLLED_BACK] == backs[0]["step"]  # never to a checkpoint of steps that were undone
    with pytest.raises(RunFailedError, match="max_rollbacks=2 allows"):  # also counted by a resume
        run(make(poison=poison), resume=True)
    assert run(make(poison=poison, guards={"action": "warn"}), resume=True).steps == ROWS // SIZE


def test_without_a_checkpoint_from_before_the_run_stops_and_says_so(make: Make) -> None:
    with pytest.raises(RunFailedError, match=r"no whole checkpoint of step 7 or before is there.*train\.save_every"):
        run(make(save_every=20))


def test_a_damaged_checkpoint_is_passed_over(make: Make) -> None:
    with pytest.raises(ZeroDivisionError):
        run(make("back", Power(POISON // SIZE + 1)))
    whole = run(make("whole"))
    _, to = rollback_of(whole)
    (folder(make, "back") / f"checkpoints/step-{to}/student/fake.safetensors").write_bytes(b"")
    result = run(make(), resume=True)
    assert rollback_of(result)[1] == to - 1
    assert f"step-{to} is damaged: student/fake.safetensors" in (result.run_dir / "run.log").read_text()


class Dying(LocalStudent):
    """May die when it is told to."""

    name: ClassVar[str] = "dying"
    _power: Power = PrivateAttr(default_factory=Power)

    async def train(self, batch: Batch) -> StepResult:
        self._power.step()
        return await super().train(batch)


def test_a_real_student_goes_back_in_place(local_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guards, "_alarms", lambda guards: ["ordered by a test"] * (guards.steps == 4))

    def config(name: str, power: Power) -> RunConfig:
        base = local_config(
            name=name,
            guards={"action": "rollback", "window": 1},
            train={"prompt_groups_per_step": 1, "save_every": 1, "keep_last": 9, "max_steps": 6},
        )
        student = Dying(**base.student.model_dump())
        student._power = power
        return base.model_copy(update={"student": student})

    whole = run(config("whole", Power()))
    assert rollback_of(whole) == (4, 2)
    saved = {path.name: (path / "student/trainer.safetensors").read_bytes() for path in checkpoints(whole.run_dir)}
    assert saved["step-4"] == saved["step-2"] != saved["step-3"]
    assert saved["step-5"] != saved["step-3"]  # the rows are others
    power = Power(4, 5)
    for resume in (False, True):
        with pytest.raises(ZeroDivisionError):
            run(config("parts", power), resume=resume)
    parts = run(config("parts", power), resume=True)
    for name, content_of_whole in saved.items():
        assert (parts.run_dir / "checkpoints" / name / "student/trainer.safetensors").read_bytes() == content_of_whole


def test_a_student_that_cannot_load_in_place_and_a_run_without_checkpoints_are_refused(make: Make) -> None:
    with pytest.raises(InputError, match=r"train\.save_every is 0; set it well below guards\.window=3"):
        run(make(save_every=0))

    class Remote(FakeStudent):
        """Loads once only."""

        name: ClassVar[str] = "remote"
        loads_in_place: ClassVar[bool] = False

    config = make()
    with pytest.raises(InputError, match="student 'remote' cannot take back earlier weights in the middle of a run"):
        run(config.model_copy(update={"student": Remote()}))
    assert not folder(make, "back").exists()
    assert not FireworksStudent.loads_in_place


def test_checkpoints_that_a_rollback_may_need_are_kept(make: Make) -> None:
    saved = [Path(f"step-{step}") for step in (2, 4, 6, 8, 10, 12)]
    assert [path.name for path in surplus(saved, 2, 0)] == ["step-2", "step-4", "step-6", "step-8"]
    assert [path.name for path in surplus(saved, 2, 5)] == ["step-2", "step-4"]  # 10, and step 11 may go back to 6
    assert [path.name for path in surplus(saved, 2, 3)] == ["step-2", "step-4", "step-6"]
    assert surplus(saved, 2, 20) == surplus(saved, 9, 0) == []
    run(make(poison=(), keep_last=1))
    steps = sorted(int(path.name.partition("-")[2]) for path in checkpoints(folder(make, "back")))
    assert steps == [20, 21, 22, 23]


def test_guards_know_from_the_metrics_what_they_knew_when_the_run_went_back() -> None:
    rows = [{"step": step, "train/reverse_kl": gap} for step, gap in enumerate([0.5, 0.4, 0.3, 0.2, 0.1, 0.1, 0.9], 1)]
    heard: list[str] = []
    live = Guards(GuardsConfig(window=2, action="rollback"), heard.append)
    for row in rows:
        alarm = live.look(row)
    assert alarm is not None
    live.go_back(Undone(3, 7), rows[:6])
    resumed = Guards(GuardsConfig(window=2, action="rollback"), heard.append)
    resumed.remember([*rows[:6], {**rows[6], ROLLED_BACK: 3.0}])
    for gap, told in ((0.45, False), (0.45, False), (0.7, True)):  # the 0.1 of the undone steps is forgotten
        answers = [guards.look({"train/reverse_kl": gap}) for guards in (live, resumed)]
        assert answers[0] == answers[1]
        assert (answers[0] is not None) == told
    assert resumed.undone == [Undone(3, 7)]


def test_undone_steps_are_counted_once() -> None:
    assert undone_steps([Undone(40, 60), Undone(60, 75)]) == 35
    assert undone_steps([Undone(40, 60), Undone(40, 75)]) == 35
    assert undone_steps([]) == 0
