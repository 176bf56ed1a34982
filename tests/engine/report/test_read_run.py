"""A run in whatever state gives a record, and a page that says so."""

import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from helpers.html_outline import outline
from helpers.written_runs import lost, step, write_lines, write_run

from distillkit.errors import InputError
from distillkit.report.lost_completions import LossGroup
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html
from distillkit.report.run_record import RunRecord
from distillkit.run_directory.run_lock import LOCK, OWNER

STATE = {
    "completed": "",
    "failed": "It failed after 20 steps",
    "interrupted": "interrupted after 20 steps",
    "stopped": "was killed",
    "unknown": "left no summary",
    "running": "It goes on",
}


def page_says(run: RunRecord) -> str:
    """What a reader sees of the section that stands first."""
    return outline(report_html([run])).all("section")[0].text


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted", "stopped"])
def test_how_a_run_ended_stands_first(tmp_path: Path, status: str) -> None:
    said = "running" if status == "stopped" else status
    run = read_run(write_run(tmp_path / "run", status=said, error="disk is full" if status == "failed" else None))
    assert run.status == status
    assert STATE[status] in page_says(run)
    assert ("disk is full" in page_says(run)) == (status == "failed")


def test_a_run_that_another_process_holds_goes_on(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", status="completed")  # of before: it was resumed
    with FileLock(run_dir / LOCK):
        (run_dir / OWNER).write_text(json.dumps({"pid": os.getpid() + 1, "host": platform.node(), "since": "now"}))
        assert read_run(run_dir).status == "running"
        assert STATE["running"] in page_says(read_run(run_dir))
        (run_dir / OWNER).write_text(json.dumps({"pid": os.getpid(), "host": platform.node(), "since": "now"}))
        assert read_run(run_dir).status == "completed"  # its own sink asks, when it is over


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl", "ledger.jsonl", "run.log", "samples.jsonl"])
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "binary", "folder"])
def test_a_file_that_is_damaged_is_said_and_hides_no_other(tmp_path: Path, name: str, harm: str) -> None:
    run_dir = write_run(tmp_path / "run", ledger=[lost("r1", "timeout")], log="2026-11-29 10:00:00,000 WARNING w\n")
    path = run_dir / name
    content = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm != "missing":
        path.write_bytes({"empty": b"", "cut": content[: len(content) - 4], "binary": b"\x00\xff\xfe\n"}[harm])
    run = read_run(run_dir)
    assert len(run.steps) == (20 if name != "metrics.jsonl" else 19 if harm == "cut" else 0)
    told = {"missing": name in ("summary.json", "metrics.jsonl", "run.log"), "empty": name == "summary.json"}
    told |= {"cut": name not in ("run.log", "samples.jsonl"), "binary": name not in ("run.log", "samples.jsonl")}
    told |= {"folder": name != "samples.jsonl"}
    assert any(name in problem for problem in run.problems) == told[harm]
    assert all(problem in page_says(run) for problem in run.problems)


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", [])
    for name in ("metrics.jsonl", "summary.json", "ledger.jsonl", "samples.jsonl"):
        (run_dir / name).unlink()
    run = read_run(run_dir)
    assert (run.status, run.steps, run.trained) == ("unknown", (), 0)
    page = outline(report_html([run]))
    headings = {e.text for e in page.all("h2")}
    assert {"Verdict", "Guards and warnings", "Settings", "Time, cost and origin"} <= headings
    assert not {"Results by route", "Curves", "What was lost"} & headings


def test_numbers_of_other_programs_do_no_harm(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"a": "text", "b": [1], "c": True, "d": 10**400, "e": None, "train/reverse_kl": 0.5}
    run_dir = write_run(tmp_path / "run", [])
    write_lines(run_dir / "metrics.jsonl", [{"step": 1, **odd}, {"step": "two"}, {"nothing": 1}])
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "x": NaN, "y": Infinity, "train/reverse_kl": 0.4}\n[1]\n')
    run = read_run(run_dir)
    assert run.values("train/reverse_kl") == [(1, 0.5), (3, 0.4)]
    assert run.values("x") == run.values("d") == run.values("y") == []
    assert run.problems == ("3 lines of metrics.jsonl cannot be read (cut off, or damaged), and left out.",)
    report_html([run])


def test_of_a_step_that_was_trained_again_the_last_line_counts(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", [step(1), step(2), step(1, **{"train/loss": 9.0})]))
    assert run.values("train/loss") == [(1, 9.0), (2, pytest.approx(0.405))]


def test_the_verdict_of_another_version_is_said(tmp_path: Path) -> None:
    summary = {"verdict": {"older": 1}, "provenance": {"versions": {"distillkit": "0.0.9"}}}
    run = read_run(write_run(tmp_path / "run", **summary))
    assert run.verdict is None
    assert "of 0.0.9" in run.problems[0]


@pytest.mark.parametrize("summary", [{"provenance": 3, "verdict": [], "eval": 1}, {"steps": "x", "wall_s": "y"}])
def test_a_summary_of_other_types_has_a_page(tmp_path: Path, summary: dict[str, Any]) -> None:
    report_html([read_run(write_run(tmp_path / "run", **summary))])


@pytest.mark.parametrize("key", ["student", "teachers", "train", "guards", "prices", "data", "name", "sinks"])
@pytest.mark.parametrize("value", [None, 3, "text", [], [1], {}, {"name": 4}])
def test_a_config_of_other_types_has_a_page(tmp_path: Path, key: str, value: Any) -> None:
    report_html([read_run(write_run(tmp_path / "run", [step(1)], config={key: value}))])


def test_losses_are_grouped_the_largest_first(tmp_path: Path) -> None:
    ledger = [lost(f"r{number}", "timeout") for number in range(7)]
    ledger += [lost("r9", "too long", "sample", None), {"outcome": "trained"}]
    losses = read_run(write_run(tmp_path / "run", ledger=ledger)).losses
    assert losses.groups == (
        LossGroup("score", "math", "timeout", 7, ("r0", "r1", "r2", "r3", "r4")),
        LossGroup("sample", "", "too long", 1, ("r9",)),
    )
    assert (losses.rows, losses.routes, losses.damaged) == ({"failed": 8}, {"math": {"failed": 8}}, 1)


def test_warnings_are_there_once_with_their_count_and_traceback(tmp_path: Path) -> None:
    line = "2026-11-29 10:0{}:00,000 {} {}\n"
    log = line.format(0, "INFO", "fine") + line.format(1, "WARNING", "look") + line.format(2, "WARNING", "look")
    log += line.format(3, "ERROR", "broke") + "Traceback\n  here\n" + line.format(4, "INFO", "over")
    first, second = read_run(write_run(tmp_path / "run", log=log)).log
    assert (first.message, first.count, first.first, first.last) == (
        "look",
        2,
        "2026-11-29 10:01:00",
        "2026-11-29 10:02:00",
    )
    assert (second.level, second.message, second.more) == ("ERROR", "broke", "Traceback\n  here\n")


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x\n")
    with pytest.raises(InputError, match="holds no run"):
        read_run(tmp_path)
