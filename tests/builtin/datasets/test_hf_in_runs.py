"""Runs, checks and `init` on folders that the library `datasets` saved."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from conftest import question, read_jsonl
from pydantic import PrivateAttr
from typer.testing import CliRunner

from distillkit import Batch, InputError, RunConfig, StepResult, run
from distillkit.cli.main import app
from distillkit.testing import FakeStudent
from distillkit_builtin.datasets.hf import HuggingFaceDataset

pytest.importorskip("datasets")

HELPERS = Path(__file__).parent.parent.parent / "helpers"


def test_a_config_names_the_folder_alone_and_the_splits_behind_it(
    saved: Callable[..., str], fake_config: Callable[..., RunConfig]
) -> None:
    folder = saved(train=[question(f"number {i}") for i in range(4)], test=[question("held out")])
    result = run(
        fake_config(data={"path": f"{folder}#train", "eval_path": f"{folder}#test"}, evaluators=["reverse_kl"])
    )
    assert result.summary["trained_rows"] == 4
    assert "after" in result.eval


def test_check_says_what_is_left_out_and_nothing_else_of_the_library(
    saved: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = saved(train=[question(f"number {i}", raw=b"\0") for i in range(4)])
    capfd.readouterr()
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {{path: '{folder}#train'}}\nstudent: {{name: fake}}\nteachers: [{{model: made-up}}]\n"
        f"plugins: [{HELPERS / 'fake_plugins.py'}]\nlog_path: {tmp_path}/runs\n",
        encoding="utf-8",
    )
    done = CliRunner().invoke(app, ["check", str(config)])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "columns that JSON does not hold are left out: raw (binary)" in said
    assert f"{Path(folder).name}#train row 1" in said
    assert not capfd.readouterr().err


class Mortal(FakeStudent):
    """Dies before a step, if it is told to."""

    name: ClassVar[str] = "mortal"
    _steps_left: float = PrivateAttr(float("inf"))

    @classmethod
    def after(cls, steps: float) -> "Mortal":
        student = cls(learning_rate=5.0)
        student._steps_left = steps
        return student

    async def train(self, batch: Batch) -> StepResult:
        self._steps_left -= 1
        if self._steps_left < 0:
            raise ZeroDivisionError("the power went")
        return await super().train(batch)


@pytest.mark.parametrize("steps", [1, 4, 9])  # in the first epoch, at its end, in the second
def test_a_run_that_died_goes_on_as_if_it_had_not(
    saved: Callable[..., str], fake_config: Callable[..., RunConfig], steps: int
) -> None:
    folder = saved(train=[question(f"row {i}") for i in range(10)], test=[question("held out")])

    def config(name: str, student: Mortal) -> RunConfig:
        data = {"path": f"{folder}#train", "eval_path": f"{folder}#test", "epochs": 2}
        train = {"save_every": 1, "eval_every": 3}
        return fake_config(name=name, data=data, student=student, train=train, evaluators=["reverse_kl"])

    whole = run(config("whole", Mortal.after(float("inf"))))
    with pytest.raises(ZeroDivisionError):
        run(config("parts", Mortal.after(steps)))
    parts = run(config("parts", Mortal.after(float("inf"))), resume=True)
    for file in ("ledger.jsonl", "samples.jsonl", "adapter/fake.safetensors"):
        assert (parts.run_dir / file).read_bytes() == (whole.run_dir / file).read_bytes(), file
    assert parts.eval["after"] == whole.eval["after"]
    assert len({(row["row_id"], row["epoch"]) for row in read_jsonl(parts.run_dir / "ledger.jsonl")}) == 20


def test_a_run_whose_rows_changed_is_refused(saved: Callable[..., str], fake_config: Callable[..., RunConfig]) -> None:
    folder = saved([question(f"row {i}") for i in range(4)])
    with pytest.raises(ZeroDivisionError):
        run(fake_config(data={"path": folder}, student=Mortal.after(1), train={"save_every": 1}))
    shutil.rmtree(folder)
    saved([question(f"row {i}") for i in (0, 1, 2, 4)])
    with pytest.raises(InputError, match="the rows changed"):
        run(fake_config(data={"path": folder}, student=Mortal.after(9), train={"save_every": 1}), resume=True)


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_and_logs_of_others_are_left_as_they_were(saved: Callable[..., str], shown: bool) -> None:
    import logging

    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled as are_the_hubs_disabled

    folder = saved([{"q": "a"}])
    level = logging.getLogger("datasets").level
    before = are_progress_bars_disabled(), are_the_hubs_disabled()
    (enable_progress_bars if shown else disable_progress_bars)()
    try:
        rows = HuggingFaceDataset(path=folder).read()
        next(rows)  # also while they are read
        assert (are_progress_bars_disabled(), are_the_hubs_disabled()) == (not shown, before[1])
        assert logging.getLogger("datasets").level == level
    finally:
        (disable_progress_bars if before[0] else enable_progress_bars)()


@pytest.mark.parametrize(
    ("splits", "line"),
    [
        ({"test": 3, "validation": 40}, "validation"),
        ({"test": 3}, "test"),
        ({"extra": 3}, None),
    ],
)
def test_init_measures_on_the_split_that_is_there_for_it(
    saved: Callable[..., str], tmp_path: Path, splits: dict[str, int], line: str | None
) -> None:
    rows = [{"question": f"Why {i}?", "answer": "So."} for i in range(40)]
    folder = saved(train=rows, **{name: rows[:count] for name, count in splits.items()})
    done = CliRunner().invoke(app, ["init", str(tmp_path / "new"), "--from", f"{folder}#train"])
    assert done.exit_code == 0, done.output
    data = yaml.safe_load((tmp_path / "new/config.yaml").read_text(encoding="utf-8"))["data"]
    assert data.get("eval_path") == (line and f"{folder}#{line}")
    assert data.get("max_eval_rows") == (32 if line == "validation" else None)
    assert ("held_out_rows" in data) == (line is None)


def test_init_leaves_a_split_alone_that_lacks_a_column(saved: Callable[..., str], tmp_path: Path) -> None:
    folder = saved(train=[{"question": "Why?", "answer": "So."}] * 12, test=[{"question": "Why?"}])
    done = CliRunner().invoke(app, ["init", str(tmp_path / "new"), "--from", f"{folder}#train"])
    assert done.exit_code == 0, done.output
    assert "held_out_rows: 6" in (tmp_path / "new/config.yaml").read_text(encoding="utf-8")
