"""No path of the machine that a run was made on is in its page, wherever it stands in the run's files."""

import json
from pathlib import Path

from helpers.html_outline import outline
from helpers.sample_lines import sample_line
from helpers.written_runs import lost, write_run

from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html
from distillkit.run_directory.directory import HEADER, PATHS_START_AT

HOME = "/home/ada"
"""Of another machine: this process does not know it."""
MODEL = f"{HOME}/models/teacher-7b"


def written(run_dir: Path) -> Path:
    """A run that has such a path in each of its files."""
    config = {
        "plugins": [f"{HOME}/code/my_router.py"],
        "data": {"path": f"{HOME}/rows/train.jsonl"},
        "teachers": [{"model": MODEL, "route_value": None, "scorer": {"name": "local"}}],
    }
    run = write_run(
        run_dir,
        config=config,
        ledger=[lost("r1", f"no file {HOME}/cache/scores.sqlite", teacher=None)],
        log=f'2026-11-29 10:00:00,000 WARNING {HOME}/code/x.py is old\n  File "{HOME}/.venv/lib/site-packages/y.py"\n',
        status="failed",
        error=f"InputError: {HOME}/rows/train.jsonl is gone",
        provenance={
            "command": f"distillkit run {HOME}/code/config.yaml -p {HOME}/code/my_router.py",
            "plugins": {"student": {"file": f"{HOME}/code/my_student.py"}},
        },
    )
    (run / "samples.jsonl").write_text(
        json.dumps(sample_line(["a", "b"], [-1.0, -2.0], [-0.5, -0.25], route=MODEL)) + "\n", encoding="utf-8"
    )
    lines = (run / "config.yaml").read_text(encoding="utf-8").split("\n", 1)
    (run / "config.yaml").write_text("\n".join([lines[0], f"{PATHS_START_AT}{HOME}/code", lines[1]]), encoding="utf-8")
    return run


def test_only_the_last_part_of_a_path_is_in_the_page(tmp_path: Path) -> None:
    html = report_html([read_run(written(tmp_path / "run"))])
    assert HOME not in html
    assert str(tmp_path) not in html
    text = outline(html).all("main")[0].text
    for name in ("my_router.py", "train.jsonl", "scores.sqlite", "x.py is old", "y.py", "config.yaml", "my_student.py"):
        assert name in text, name
    assert outline(html).data("tokens")["routes"] == ["teacher-7b"]


def test_settings_that_differ_by_their_folder_are_still_told(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name=name, config={"data": {"path": f"{HOME}/{name}/x.jsonl"}}) for name in "ab"]
    html = report_html([read_run(run) for run in runs])
    assert HOME not in html
    assert "data.path" in next(e for e in outline(html).all("section") if e.attributes.get("id") == "settings").text


def test_a_run_whose_config_is_damaged_has_a_page_all_the_same(tmp_path: Path) -> None:
    run = written(tmp_path / "run")
    (run / "config.yaml").write_bytes(HEADER.encode() + b"\n\xff\xfe")
    html = report_html([read_run(run)])
    assert "config.yaml cannot be read" in html
    assert str(tmp_path) not in html
