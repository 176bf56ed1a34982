"""`eval` of a run of which the export alone is left: what no export holds is said, and measured as at the start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from typer.testing import CliRunner

from distillkit.cli.main import app

SCRIPT = '''
from typing import ClassVar

from distillkit import Scorer, Student, hookimpl
from distillkit.testing import FakeScorer, FakeStudent


class Restarting(FakeStudent):
    """Starts from an export, as far as this test looks."""

    name: ClassVar[str] = "restarting"

    def from_export(self, path):
        return self.model_copy()


class Moving(FakeScorer):
    """Likes other letters after each sync, and keeps how many there were."""

    name: ClassVar[str] = "moving"
    _syncs = 0

    def moves(self):
        return True

    async def on_sync(self, weights):
        self._syncs += 1

    def state(self):
        return {"syncs": self._syncs}

    def restore(self, state, tensors):
        self._syncs = state["syncs"]

    def metrics(self):
        return {"moving/syncs": float(self._syncs)}


@hookimpl
def distillkit_students():
    return [Restarting]


@hookimpl
def distillkit_scorers():
    return [Moving, FakeScorer]
'''
NOTE = "holds the student alone"


def done(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.fixture
def run(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make a run of two steps whose teacher `a` has this scorer; teacher `b` stays as it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moving.py").write_text(SCRIPT)
    rows = [question(f"number {i}", teacher="ab"[i % 2]) for i in range(4)]

    def make(scorer: str) -> Path:
        values: dict[str, Any] = {
            "name": "run",
            "data": {"path": jsonl(rows), "eval_path": jsonl(rows[:2], "heldout.jsonl")},
            "student": {"name": "restarting", "learning_rate": 30.0},
            "teachers": [
                {"model": "m", "route_value": "a", "scorer": {"name": scorer, "likes": "abc"}},
                {"model": "m", "route_value": "b", "scorer": {"name": "fake", "likes": "xyz"}},
            ],
            "sampling": {"max_completion_tokens": 12},
            "train": {"prompt_groups_per_step": 2},
            "plugins": ["moving.py"],
            "sinks": [],
        }
        Path("config.yaml").write_text(yaml.safe_dump(values))
        done("run", "config.yaml", "-q")
        return Path("runs/run")

    return make


def test_a_teacher_that_moved_is_as_at_the_start_and_a_note_says_so(run: Callable[[str], Path]) -> None:
    run_dir = run("moving")
    assert NOTE not in done("eval", "runs/run")
    shutil.rmtree(run_dir / "checkpoints")
    said = done("eval", "runs/run", "--out", "export.json")
    assert "note: runs/run/adapter holds the student alone: what teachers.a.scorer (moving) kept of the run" in said
    assert "is in its checkpoints, and here as at the start, not as after step 2" in said
    assert "teachers.b" not in said
    assert json.loads(Path("export.json").read_text())["step"] == 2
    assert NOTE not in done("eval", "runs/run", "--step", "0")


def test_where_no_plugin_keeps_anything_nothing_is_said(run: Callable[[str], Path]) -> None:
    shutil.rmtree(run("fake") / "checkpoints")
    assert NOTE not in done("eval", "runs/run")
