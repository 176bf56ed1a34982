"""What the page of a run that did not come to its end says of how far it came, and of how it goes on."""

from pathlib import Path
from typing import Any

import pytest
from helpers.html_outline import outline
from helpers.written_runs import step, write_run

from distillkit.report.going_on import resume_command
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html


def says(run: Path) -> str:
    return outline(report_html([read_run(run)])).all("section")[0].text


def stopped(tmp_path: Path, saved: int | None = 2, **summary: Any) -> Path:
    """A run of three steps that failed, with a checkpoint unless it is None."""
    run = write_run(tmp_path / "run", [step(number) for number in (1, 2, 3)], **{"status": "failed", **summary})
    if saved is not None:
        (run / "checkpoints" / f"step-{saved}").mkdir(parents=True)
    return run


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("distillkit run config.yaml train.max_steps=5", "distillkit run config.yaml train.max_steps=5 --resume"),
        ("distillkit run c.yaml --overwrite -p my.py", "distillkit run c.yaml -p my.py --resume"),
        ("distillkit run c.yaml --resume --from-step 3 -v", "distillkit run c.yaml -v --resume"),
        ("distillkit run --resume --from-step=3 --force c.yaml", "distillkit run c.yaml --resume"),
        ("python -m distillkit run 'my config.yaml'", "python -m distillkit run 'my config.yaml' --resume"),
        ("train.py", "--resume"),
        ("distillkit run 'open", "--resume"),
    ],
)
@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_the_command_that_goes_on_is_that_of_the_start(tmp_path: Path, typed: str, told: str, status: str) -> None:
    said = says(stopped(tmp_path, status=status, provenance={"command": typed, "processes": 1}))
    assert f"Go on after step 2 by {told}" in said


def test_several_processes_are_started_by_another_command_than_each_of_theirs(tmp_path: Path) -> None:
    run = read_run(stopped(tmp_path, provenance={"command": "distillkit run config.yaml", "processes": 2}))
    assert resume_command(run).startswith("`--resume`")


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    said = says(stopped(tmp_path, saved=None, provenance={"command": "distillkit run config.yaml"}))
    assert "It left no checkpoint to go on from" in said
    assert "--resume" not in said


def test_how_many_steps_of_how_many(tmp_path: Path) -> None:
    assert "It failed after 3 of 1,200 steps." in says(stopped(tmp_path / "a", planned_steps=1200))
    assert "It failed after 3 steps." in says(stopped(tmp_path / "b"))  # of an earlier version
