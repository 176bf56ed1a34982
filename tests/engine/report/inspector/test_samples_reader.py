"""A samples file that grows, is cut, or has no end."""

import json
import os
from pathlib import Path

import pytest
from helpers.sample_lines import sample_line

from distillkit.files import jsonl
from distillkit.report.inspector import recorded
from distillkit.report.inspector.inspector_section import inspector_section
from distillkit.report.inspector.samples_reader import SamplesReader
from distillkit.report.read_run import read_run
from distillkit.run_directory.directory import HEADER
from distillkit.view.pages import Pages


def line(row: str, step: int = 1) -> str:
    return json.dumps(sample_line(["a", " b"], [-1, -2], [-2, -1], row=row, step=step)) + "\n"


def rows(reader: SamplesReader, path: Path) -> list[str]:
    return [place.row_id for place in reader.read([path]).places]


def test_only_what_is_new_is_read_and_it_all_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reader, parsed = tmp_path / "samples.jsonl", SamplesReader(), 0
    parse = recorded._completion

    def counted(text: bytes) -> object:
        nonlocal parsed
        parsed += 1
        return parse(text)

    monkeypatch.setattr(recorded, "_completion", counted)
    assert rows(reader, path) == []
    path.write_text(line("a") + line("b"))
    assert rows(reader, path) == ["a", "b"]
    with path.open("a") as file:
        file.write(line("c"))
    assert rows(reader, path) == ["a", "b", "c"]
    assert parsed == 3
    (route,) = reader.pushes.told()
    assert route.completions == 3


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path, reader, text = tmp_path / "samples.jsonl", SamplesReader(), line("b")
    path.write_text(line("a") + text[:40])
    found = reader.read([path])
    assert ([place.row_id for place in found.places], found.damaged) == (["a"], 1)
    path.write_text(line("a") + text)
    found = reader.read([path])
    assert ([place.row_id for place in found.places], found.damaged) == (["a", "b"], 0)


def test_what_a_resume_wrote_in_another_way_is_read_anew(tmp_path: Path) -> None:
    path, reader = tmp_path / "samples.jsonl", SamplesReader()
    path.write_text(line("a") + line("b"))
    assert rows(reader, path) == ["a", "b"]
    path.write_text(line("a") + line("x") + line("y"))
    assert rows(reader, path) == ["a", "x", "y"]
    path.write_text(line("a"))
    assert rows(reader, path) == ["a"]
    (route,) = reader.pushes.told()
    assert route.completions == 1


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 5000)
    path = tmp_path / "samples.jsonl"
    path.write_text("x" * 23_000 + "\n" + line("a"))
    assert [len(text) for _, text in jsonl.lines_from(path)] == [5000, len(line("a"))]
    assert next(offset for offset, text in jsonl.lines_from(path) if text == line("a").encode()) == 23_001


@pytest.mark.parametrize("name", ["samples.jsonl", "metrics.jsonl", "ledger.jsonl", "run.log", "summary.json"])
def test_a_pipe_in_the_place_of_a_file_holds_up_nothing(tmp_path: Path, name: str) -> None:
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(HEADER + ".\nname: one\n")
    os.mkfifo(run / name)
    (told,) = Pages(tmp_path / "runs").runs()
    assert isinstance(told, dict)
    record = read_run(run)
    if name == "samples.jsonl":
        assert "no regular file" in inspector_section([record]).html
    else:
        assert any(name in problem and "no regular file" in problem for problem in record.problems)
