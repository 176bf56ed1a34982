"""Sink `csv`: a row a step, whatever happens to the disk or the file."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

import distillkit
from distillkit import RunConfig
from distillkit_builtin.sinks import csv_file
from distillkit_builtin.sinks.csv_file import CsvSink, read

Make = Callable[..., RunConfig]


def test_columns_of_a_csv_may_be_chosen(fake_config: Make) -> None:
    result = distillkit.run(fake_config(sinks=[{"name": "csv", "columns": ["train/reverse_kl"]}]))
    with (result.run_dir / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "train/reverse_kl"]
    assert [float(row[1]) for row in rows[1:]] == [row["train/reverse_kl"] for row in result.metrics]


def test_a_row_that_was_cut_off_in_its_last_cell_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,a,b\n1,0.5,0.25\n2,0.5,0.2", encoding="utf-8")
    assert [row["step"] for row in read(path)] == ["1"]


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, path = CsvSink(), tmp_path / "metrics.csv"
    sink._begin(path, 1)
    sink._add(path, 1, {"a": 1.0})
    whole = path.read_bytes()

    write, left = csv_file._write, [1, 3]  # of each row that is written, the first bytes fit

    def full(file: io.FileIO, place: int, data: bytes) -> None:
        if data in whole:  # what stood there fits again
            return write(file, place, data)
        write(file, place, data[: left.pop()])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(csv_file, "_write", full)
        for step in (1, 2):  # the first is there already
            with pytest.raises(OSError, match="No space"):
                sink._add(path, step, {"a": 2.0})
            assert path.read_bytes() == whole
    sink._add(path, 2, {"a": 2.5})
    sink._add(path, 3, {"a": 3.0})
    assert [(row["step"], row["a"]) for row in read(path)] == [("1", "1.0"), ("2", "2.5"), ("3", "3.0")]


def test_an_evaluation_replaces_the_last_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink, path = CsvSink(), tmp_path / "metrics.csv"
    sink._begin(path, 1)
    sink._add(path, 1, {"a": 1.0, "eval/b": 9.0})
    monkeypatch.setattr(CsvSink, "_rewrite", None)  # a call of it would fail
    for step in (2, 3):
        sink._add(path, step, {"a": float(step)})
        sink._add(path, step, {"eval/b": 0.5})
    assert path.read_text(encoding="utf-8").split() == ["step,a,eval/b", "1,1.0,9.0", "2,2.0,0.5", "3,3.0,0.5"]


def test_a_file_that_somebody_else_has_changed_is_written_whole(tmp_path: Path) -> None:
    sink, path = CsvSink(), tmp_path / "metrics.csv"
    sink._begin(path, 1)
    sink._add(path, 1, {"a": 1.0})
    path.write_text("step,a\n1,1.0\n", encoding="utf-8")  # line ends of another program
    sink._add(path, 2, {"a": 2.0})
    assert [(row["step"], row["a"]) for row in read(path)] == [("1", "1.0"), ("2", "2.0")]
