"""A run over rows of any format is the run over the same rows as JSON lines, and goes on as if it had never stopped."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import question, read_jsonl
from helpers.row_formats import FORMATS, write_rows
from helpers.rows import rows_of
from pydantic import PrivateAttr

from distillkit import RunConfig, RunResult, run
from distillkit.testing import FakeStudent
from distillkit.training_data import Batch, StepResult
from distillkit_builtin.datasets.files import FilesDataset

ROWS = [question(f"row é {n}", teacher="t", expected_answer=f"{n}") for n in range(24)]
HELD_OUT = [question(f"held out {n}", teacher="t", expected_answer=f"{n}") for n in range(3)]


class Mortal(FakeStudent):
    """Dies before its eighth step, once."""

    name: ClassVar[str] = "mortal"
    _steps: list[int] = PrivateAttr(default_factory=lambda: [0])

    async def train(self, batch: Batch) -> StepResult:
        self._steps[0] += 1
        if self._steps[0] == 8:
            raise ZeroDivisionError("the power went")
        return await super().train(batch)


@pytest.fixture
def make(fake_config: Callable[..., RunConfig]) -> Callable[..., RunConfig]:
    def config(name: str, data: Mapping[str, Any], student: FakeStudent | None = None) -> RunConfig:
        return fake_config(
            name=name,
            data={"epochs": 1, **data},
            student=student or FakeStudent(learning_rate=5.0),
            sampling={"completions_per_prompt": 2, "max_completion_tokens": 8},
            train={"prompt_groups_per_step": 2, "eval_every": 3, "save_every": 2},
        )

    return config


def numbers(result: RunResult) -> Any:
    """Samples and metrics, but for times and how much was under way at once."""
    metrics = [
        {name: value for name, value in row.items() if not name.startswith("time/") and not name.endswith("/inflight")}
        for row in read_jsonl(result.run_dir / "metrics.jsonl")
    ]
    return metrics, (result.run_dir / "samples.jsonl").read_text(), (result.run_dir / "ledger.jsonl").read_text()


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_that_stopped_goes_on_as_the_run_that_did_not(
    make: Callable[..., RunConfig], tmp_path: Path, name: str
) -> None:
    data = {
        "path": write_rows(tmp_path / "train", name, ROWS),
        "eval_path": write_rows(tmp_path / "held-out", name, HELD_OUT),
    }
    whole = run(make("whole", data))
    student = Mortal(learning_rate=5.0)
    with pytest.raises(ZeroDivisionError):
        run(make("parts", data, student))
    parts = run(make("parts", data, student), resume=True)
    assert parts.steps == 12
    assert numbers(parts) == numbers(whole)


def test_a_run_over_a_folder_that_stopped_goes_on_too(make: Callable[..., RunConfig], tmp_path: Path) -> None:
    for part in range(4):
        name = ("rows.jsonl", "rows.jsonl.gz", "rows.json", "objects.jsonl")[part]
        write_rows(tmp_path / "train" / str(part), name, ROWS[part * 6 : part * 6 + 6])
    data = {"path": str(tmp_path / "train"), "eval_path": write_rows(tmp_path / "held-out", "rows.csv", HELD_OUT)}
    whole = run(make("whole", data))
    student = Mortal(learning_rate=5.0)
    with pytest.raises(ZeroDivisionError):
        run(make("parts", data, student))
    assert numbers(run(make("parts", data, student), resume=True)) == numbers(whole)
    ids = {entry["row_id"].partition("-")[0] for entry in read_jsonl(whole.run_dir / "ledger.jsonl")}
    assert len(ids) == 24
    assert "2/rows.json:3" in ids


@pytest.mark.parametrize("name", FORMATS)
def test_reading_that_ends_early_leaves_nothing_open(tmp_path: Path, name: str) -> None:
    rows = FilesDataset(path=write_rows(tmp_path, name, ROWS)).read()
    next(rows)
    before = len(list(Path("/proc/self/fd").iterdir()))
    rows.close()  # type: ignore[attr-defined]  # a generator
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_rows_are_the_same_prompts_whatever_holds_them(tmp_path: Path, name: str) -> None:
    lines = rows_of(write_rows(tmp_path, "rows.jsonl", ROWS))
    others = rows_of(write_rows(tmp_path, name, ROWS))
    assert len(others) == len(lines) == 24
    for row, other in zip(lines.rows(), others.rows(), strict=True):
        assert other.messages == row.messages
        assert other.expected_answer == row.expected_answer
        assert other.fields["teacher"] == "t"
    assert lines.order(1, 7, shuffle=True).tolist() == others.order(1, 7, shuffle=True).tolist()
    assert others.row(17).messages[0].content == "row é 17"
