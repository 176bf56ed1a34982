"""A resumed run is the run that was never interrupted, or it is refused."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import question, read_jsonl

from distillkit import RunConfig, run
from distillkit.errors import InputError
from distillkit.run_directory.checkpoint import checkpoints
from distillkit.run_directory.directory import run_directory
from distillkit.training_data import Batch, StepResult
from engine.run_directory.mortal_runs import Mortal, Power, content, dead, each_row_once

Make = Callable[..., RunConfig]


@pytest.mark.parametrize("train", [{}, {"max_steps_off_policy": 1}, {"max_steps_off_policy": 2}], ids=str)
@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("save_every", [1, 2])
def test_a_run_that_died_again_and_again_is_the_run_that_never_did(
    make: Callable[..., RunConfig], train: dict[str, int], interval: int, save_every: int
) -> None:
    options = {**train, "weight_sync_interval": interval, "save_every": save_every}
    whole = run(make("whole", Power(), **options))
    power = Power(3, 4, 9, 11)
    with pytest.raises(ZeroDivisionError):
        run(make("parts", power, **options))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            run(make("parts", power, **options), resume=True)
    parts = run(make("parts", power, **options), resume=True)
    assert not power.after
    assert content(parts) == content(whole)


def test_rows_that_are_held_out_or_left_out_stay_so_through_deaths(
    fake_config: Make, jsonl: Callable[..., str], make: Callable[..., RunConfig]
) -> None:
    path = jsonl([question(f"row {i} {'x' * (40 * (i % 3 == 0))}") for i in range(30)], "some.jsonl")
    data = {"path": path, "held_out_rows": 6, "max_prompt_tokens": 40, "epochs": 2}

    def config(name: str, power: Power) -> RunConfig:
        base = make(name, power, save_every=2)
        return base.model_copy(update={"data": fake_config(data=data).data})

    whole = run(config("whole", Power()))
    power = Power(3, 8)
    with pytest.raises(ZeroDivisionError):
        run(config("parts", power))
    with pytest.raises(ZeroDivisionError):
        run(config("parts", power), resume=True)
    parts = run(config("parts", power), resume=True)
    assert content(parts) == content(whole)
    trained = Counter(row["row_id"].partition("-")[0] for row in read_jsonl(whole.run_dir / "ledger.jsonl"))
    short = {str(i + 1) for i in range(30) if i % 3}
    held_out = short - trained.keys()
    assert trained.keys() <= short
    assert 1 <= len(held_out) <= 6
    assert len(set(trained.values())) == 1  # each row in each epoch
    with pytest.raises(InputError, match="was written by another run"):
        run(config("parts", Power()).model_copy(update={"seed": 1}), resume=True)


def test_a_damaged_checkpoint_is_found_out_and_the_one_before_it_used(make: Callable[..., RunConfig]) -> None:
    whole = run(make("whole", Power(), save_every=1, keep_last=3))
    folder = dead(make)
    weights = folder / "checkpoints/step-5/student/fake.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3] + b"abc")
    resumed = run(make("dead", Power(), save_every=1, keep_last=3), resume=True)
    log = (folder / "run.log").read_text()
    assert "checkpoints/step-5 is damaged: student/fake.safetensors is not what was written" in log
    assert f"resumed after step 4 from {folder / 'checkpoints/step-4'}" in log
    assert content(resumed) == content(whole)


@pytest.mark.parametrize("how", ["cut", "missing", "no checksums"])
def test_without_a_whole_checkpoint_a_resume_says_so(make: Callable[..., RunConfig], how: str) -> None:
    folder = dead(make)
    for path in checkpoints(folder):
        state = path / "engine.json"
        if how == "cut":
            state.write_text(state.read_text()[:50])
        elif how == "missing":
            state.unlink()
        else:
            (path / "checksums.json").write_text("{")
    with pytest.raises(InputError, match=r"no checkpoint is whole; run again with --overwrite") as caught:
        run(make("dead", Power(), save_every=1), resume=True)
    assert str(caught.value).count("is damaged") == 3


def test_a_run_that_is_another_is_refused_and_what_changed_is_listed(
    make: Callable[..., RunConfig], jsonl: Callable[..., str]
) -> None:
    folder = dead(make)
    config = make("dead", Power(), prompt_groups_per_step=3)
    rows = Path(config.data.path)
    rows.write_text(rows.read_text().replace("row 7", "row seven"))
    student = Mortal(learning_rate=6.0)
    other = config.model_copy(update={"seed": 7, "student": student})
    with pytest.raises(InputError) as caught:
        run(other, resume=True)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{folder / 'checkpoints/step-5'} was written by another run than this one would be:"
    assert lines[1:-1] == [
        "  seed was 0, is 7",
        "  student.learning_rate was 5.0, is 6.0",
        "  train.prompt_groups_per_step was 2, is 3",
        "  the rows changed",
    ]
    assert "--resume --force" in lines[-1]
    assert read_jsonl(folder / "metrics.jsonl")[-1]["step"] == 5
    assert "seed: 0" in (folder / "config.yaml").read_text()  # a refusal changes nothing
    assert run(other, resume=True, force=True).steps == 10  # 5 of two rows, 5 of three: none of 24 is left out


def test_more_epochs_leave_out_no_row_though_the_last_step_was_not_full(
    make: Callable[..., RunConfig],
) -> None:
    first = run(make("more", Power(), prompt_groups_per_step=7, save_every=1))
    assert first.steps == 4  # 7, 7, 7 and 3 rows
    config = make("more", Power(), prompt_groups_per_step=7, save_every=1)
    more = config.model_copy(update={"data": config.data.model_copy(update={"epochs": 2})})
    result = run(more, resume=True)
    rows = [(entry["row_id"], entry["epoch"]) for entry in read_jsonl(result.run_dir / "ledger.jsonl")]
    assert len(rows) == len(set(rows)) == 48
    assert (result.steps, result.summary["rows"]) == (8, 48)


@pytest.mark.parametrize(
    ("each", "epochs", "of_each"),
    [  # 24 rows: a first epoch's last step that is full, that is not, and that is the only one
        (24, 2, [24, 24]),
        (25, 2, [24, 24]),
        (100, 3, [24, 48]),
        (30, 3, [24, 30, 18]),
        (16, 2, [16, 8, 16, 8]),
    ],
)
def test_more_epochs_go_on_whatever_the_last_step_held(
    make: Callable[..., RunConfig], each: int, epochs: int, of_each: list[int]
) -> None:
    run(make("more", Power(), prompt_groups_per_step=each))
    config = make("more", Power(), prompt_groups_per_step=each)
    more = config.model_copy(update={"data": config.data.model_copy(update={"epochs": epochs})})
    result = run(more, resume=True)
    rows_of = Counter(entry["step"] for entry in read_jsonl(result.run_dir / "ledger.jsonl"))
    assert [rows_of[step] for step in range(1, result.steps + 1)] == of_each
    each_row_once(result.run_dir, 24 * epochs)
    before = (result.run_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"this run is complete; raise train\.max_steps or data\.epochs"):
        run(more, resume=True)
    assert (result.run_dir / "metrics.jsonl").read_bytes() == before  # a refusal changes nothing


def test_evaluators_that_come_later_make_up_no_measurement_from_before(make: Callable[..., RunConfig]) -> None:
    config = make("dead", Power(6), save_every=1)
    with pytest.raises(ZeroDivisionError):
        run(config.model_copy(update={"evaluators": ()}))
    result = run(make("dead", Power(), save_every=1), resume=True)
    assert "before" not in result.eval
    assert [row["step"] for row in result.metrics] == list(range(1, 13))


def test_what_was_saved_after_a_damaged_checkpoint_is_forgotten(make: Callable[..., RunConfig]) -> None:
    folder = dead(make)
    (folder / "checkpoints/step-5/checksums.json").write_text("{}")
    (folder / "checkpoints/.step-9.partial").mkdir()
    with pytest.raises(ZeroDivisionError):
        run(make("dead", Power(1), save_every=1), resume=True)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-3", "step-4"]


def test_more_steps_and_other_sinks_are_no_other_run(make: Callable[..., RunConfig]) -> None:
    dead(make, max_steps=6)
    config = make("dead", Power(), max_steps=9, save_every=2, eval_every=0, keep_last=1)
    changed = config.model_copy(update={"evaluators": (), "sinks": ()})
    assert run(changed, resume=True).steps == 9


def test_checkpoints_hold_no_pickle(make: Callable[..., RunConfig]) -> None:
    folder = dead(make)
    suffixes = {path.suffix for path in (folder / "checkpoints").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}
    for path in (folder / "checkpoints").rglob("*.json"):
        json.loads(path.read_text())


def test_an_interrupt_of_a_run_in_python_stops_at_once_and_the_log_says_where_a_resume_goes_on(
    make: Callable[..., RunConfig],
) -> None:
    class Interrupted(Mortal):
        """Is interrupted while it trains a step."""

        name: ClassVar[str] = "mortal"

        async def train(self, batch: Batch) -> StepResult:
            if self._power.steps == 4:
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)
            return await super().train(batch)

    config = make("whole", Power(), save_every=2)
    with pytest.raises(KeyboardInterrupt):
        run(config.model_copy(update={"student": Interrupted.on(Power())}))
    folder = run_directory(config)
    assert "interrupted at step 5; a resume goes on after step 4" in (folder / "run.log").read_text()
    assert run(config, resume=True).steps == 12
