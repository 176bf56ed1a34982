"""A run that fails between two saves loses no step that was complete, and goes on as if it had never failed."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ClassVar

import pytest
from conftest import read_jsonl

from distillkit import RunConfig, run
from distillkit.errors import RunFailedError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.run_directory.directory import run_directory
from engine.loop.failing_runs import DIES_AT, Fuse, Teacher, content, fail

Make = Callable[..., RunConfig]


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
