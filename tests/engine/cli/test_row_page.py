"""`distillkit check` shows a row as it is and what is made of it, and says how rows are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit.cli.reporting import OUT

FAKES = str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py")
LONG = {
    "question": "Why?\n\x1b[2J" + "x" * 300,
    "answer": {"deep": ["é", 1]},
    "a name that is far too long to be shown": 1,
}


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The output of `check` for rows of these columns, in a terminal of this width."""
    monkeypatch.chdir(tmp_path)
    config = {
        "data": "rows.jsonl",
        "student": "fake",
        "teachers": [{"model": "m", "route_value": "a", "scorer": "fake"}],
        "plugins": [FAKES],
    }
    Path("config.json").write_text(json.dumps(config), encoding="utf-8")

    def call(rows: list[Any], *overrides: str, width: int = 80) -> str:
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        monkeypatch.setattr(OUT, "_width", width)  # COLUMNS is read when a console is made
        done = CliRunner().invoke(app, ["check", "config.json", *overrides])
        assert done.exit_code == 0, done.output
        return done.output

    return call


def page(output: str) -> list[str]:
    lines = [line.rstrip() for line in output.partition("a row, before and after")[2].splitlines()]
    return lines[1 : lines.index("it is scored by a") + 1]


def test_before_and_after(check: Callable[..., str]) -> None:
    output = check([{"question": "Why?", "answer": "So.", "id": 3}])
    assert page(output) == [
        "rows.jsonl:1 holds",
        "  question  Why?",
        "  answer    So.",
        "  id        3",
        "data.format makes of it",
        "  expected_answer  So.",
        "  messages         user: Why?",
        "it is scored by a",
    ]
    assert "note: rows are read as question/answer: data.format: {prompt: " in output
    assert output.count("rows are read as") == 1


def test_a_row_is_shown_before_models_are_asked(check: Callable[..., str]) -> None:
    check([{"question": "Why?", "answer": "So."}])
    done = CliRunner().invoke(app, ["check", "config.json", "student.context=5"])
    assert done.exit_code == 2
    assert "question  Why?" in done.output
    assert "  messages         user: Why?" in done.output
    assert "leaves no room for a prompt" in done.output
    quiet = CliRunner().invoke(app, ["check", "config.json", "student.context=5", "--quiet"])
    assert "Why?" not in quiet.output


def test_rows_that_stay_as_they_are(check: Callable[..., str]) -> None:
    output = check([{"messages": [{"role": "user", "content": "Why?"}], "expected_answer": None}])
    assert page(output) == [
        "rows.jsonl:1 holds",
        "  messages         user: Why?",
        "  expected_answer  null",
        "it is scored by a",
    ]
    assert "rows are read as" not in output


def test_the_plan_says_how_rows_are_sorted_and_how_long_prompts_are(check: Callable[..., str]) -> None:
    rows = [
        {
            "messages": [{"role": "user", "content": "x"}],
            "teacher_messages": [{"role": "user", "content": "x" * 2000}],
            "level": level,
            "topic": f"t{level}",
        }
        for level in (3, 1.5, 20)
    ]
    output = check(rows, "data.sort.by=level", "data.sort.descending=true", width=140)
    plan = {line[:17].strip(): line[17:].strip() for line in output.splitlines()}
    assert plan["order"] == "each epoch by level, descending: from 20 to 1.5"
    assert plan["longest prompt"] == "20 tokens (student), 2,019 (teachers)"
    output = check(rows * 400, "data.sort=topic", width=140)
    assert " each epoch by topic: from 't1.5' to 't3'" in output
    assert " 1,200 (a 1,200); held out: 0" in output
    assert "\n order" not in check(rows)


@pytest.mark.parametrize("width", [80, 140])
def test_what_is_long_is_cut_at_the_edge(check: Callable[..., str], width: int) -> None:
    lines = page(check([LONG], 'data.format.prompt="{{ question }}"', width=width))
    assert max(map(len, lines)) == width
    assert lines[1].startswith("  question                  Why?\\n\\x1b[2Jxxx")
    assert lines[1].endswith("x…")
    assert lines[2] == '  answer                    {"deep": ["é", 1]}'
    assert lines[3] == "  a name that is far too …  1"


def test_many_columns(check: Callable[..., str]) -> None:
    lines = page(check([{"prompt": "Why?", **{f"c{i}": i for i in range(50)}}]))
    assert lines[20:22] == ["  c18     18", "  and 31 more"]
