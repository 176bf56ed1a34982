"""`distillkit init --from`: a config that `check` takes, or one that says what is left to say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distillkit.cli.main import app

FAKES = str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py")
AS_FAKES = ["student=fake", "teachers.0.scorer=fake", "sampling.chat_template_kwargs={}", "-p", FAKES]
USER = {"role": "user", "content": "Why?"}
QUESTION = {"question": "Why?", "answer": "So.", "id": 1}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), terminal_width=200)


def rows(columns: Sequence[Any], path: str = "rows.jsonl") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in columns), encoding="utf-8")
    return path


def written(path: str = "config.yaml") -> Any:
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(("count", "held_out"), [(4, None), (11, None), (12, 6), (70, 14), (400, 32)])
def test_one_of_five_rows_is_held_out_from_what_a_verdict_takes_to_32(count: int, held_out: int | None) -> None:
    call("init", "--from", rows([{**QUESTION, "id": number} for number in range(count)]))
    assert written()["data"].get("held_out_rows") == held_out


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        (QUESTION, {"prompt": "{{ question }}", "expected_answer": "{{ answer }}"}),
        ({"messages": [USER]}, {"messages": "{{ messages }}"}),
        (
            {"instruction": "Add.", "input": "1", "output": "x"},
            {"prompt": "{{ [instruction, input | default('')] | select | join('\n\n') }}"},
        ),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
            {"messages": "{{ conversations | from_sharegpt | without_answer }}"},
        ),
    ],
)
def test_the_mapping_is_written_and_checked(row: Any, mapping: Any) -> None:
    done = call("init", "--from", rows([row]))
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == ["wrote config.yaml", "next: distillkit check config.yaml"]
    assert written()["data"] == {"path": "rows.jsonl", "format": mapping, "epochs": 1}
    checked = call("check", "config.yaml", *AS_FAKES)
    assert checked.exit_code == 0, checked.output
    assert "note: rows are read as" not in checked.output
    assert sorted(path.name for path in Path().iterdir()) == ["config.yaml", "rows.jsonl"]


def test_the_path_works_in_the_folder_that_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = rows([QUESTION], "data/rows.jsonl")
    done = call("init", "my run", "--from", path)
    assert done.output.splitlines()[-1] == "next: cd 'my run' && distillkit check config.yaml"
    monkeypatch.chdir("my run")
    assert written()["data"]["path"] == "../data/rows.jsonl"
    assert call("check", "config.yaml", *AS_FAKES).exit_code == 0
    assert call("init", "other", "--from", str(tmp_path / path)).exit_code == 0
    assert written("other/config.yaml")["data"]["path"] == str(tmp_path / path)


@pytest.mark.parametrize("teachers", ["1", "2"])
@pytest.mark.parametrize(
    ("row", "lines"),
    [
        ({"Problem": "Why?", "a\nb": "x"}, ['#   prompt: "{{ Problem }}"', '# columns: Problem, "a\\nb"']),
        ({"messages": [USER], "prompt": "Why?"}, ['#   messages: "{{ messages }}"', '#   prompt: "{{ prompt }}"']),
    ],
)
def test_what_is_left_to_say_is_said(row: Any, lines: list[str], teachers: str) -> None:
    done = call("init", "--from", rows([row]), "--teachers", teachers)
    assert done.output.splitlines()[-1] == (
        "next: say in data.format of config.yaml what prompts are made of, then distillkit check config.yaml"
    )
    text = Path("config.yaml").read_text(encoding="utf-8")
    assert all(f"  {line}\n" in text for line in lines)
    more = ["teachers.1.scorer=fake"] if teachers == "2" else []
    checked = call("check", "config.yaml", *AS_FAKES, *more)
    assert checked.exit_code == 2
    assert "such as\n  format: " in checked.output or "write one of these lines" in checked.output


@pytest.mark.parametrize(
    ("columns", "router", "routes", "template"),
    [
        (
            [{**QUESTION, "kind": kind} for kind in ("it's", "b", "b", "b")],
            {"name": "field", "route_key": "kind"},
            ["it's", "b"],
            None,
        ),
        (
            [{**QUESTION, "my kind": kind} for kind in "abcabc"],
            {"name": "field", "route_key": "teacher"},
            ["first", "second"],
            "{{ 'first' if row['my kind'] == 'a' else 'second' }}",
        ),
        ([QUESTION, QUESTION], {"name": "field", "route_key": "teacher"}, ["first", "second"], "first"),
    ],
)
def test_two_teachers_have_a_route(columns: Any, router: Any, routes: list[str], template: str | None) -> None:
    assert call("init", "--from", rows(columns), "--teachers", "2").exit_code == 0
    config = written()
    assert config["router"] == router
    assert [teacher["route_value"] for teacher in config["teachers"]] == routes
    assert config["data"]["format"].get("teacher") == template
    checked = call("check", "config.yaml", *AS_FAKES, "teachers.1.scorer=fake")
    assert checked.exit_code == 0, checked.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "rows.jsonl: holds no rows"),
        ("{oops\n", "rows.jsonl:1: line: is not JSON"),
        ("{}\n", "rows.jsonl: holds no rows with columns"),
    ],
)
def test_data_that_cannot_be_read_writes_nothing(content: str, message: str) -> None:
    Path("rows.jsonl").write_text(content, encoding="utf-8")
    done = call("init", "new", "--from", "rows.jsonl")
    assert done.exit_code == 2
    assert message in done.output
    assert "absent.jsonl: no such file" in call("init", "new", "--from", "absent.jsonl").output
    assert not Path("new").exists()


def test_a_config_that_is_there_stays() -> None:
    Path("config.yaml").write_text("mine", encoding="utf-8")
    done = call("init", "--from", rows([QUESTION]))
    assert done.exit_code == 2
    assert "has config.yaml already" in done.output
    assert Path("config.yaml").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_another_delimiter_is_written_as_the_source(delimiter: str) -> None:
    table = "question;answer\nWhy, then?;So.\nWhy?;So.\n".replace(";", delimiter)
    Path("rows.csv").write_text(table, encoding="utf-8")
    assert call("init", "new", "--from", "rows.csv").exit_code == 0
    data = written("new/config.yaml")["data"]
    assert data["source"] == {"name": "files", "path": "../rows.csv", "delimiter": delimiter}
    assert "path" not in data
    checked = call("check", "new/config.yaml", "data.source.path=rows.csv", *AS_FAKES)
    assert checked.exit_code == 0, checked.output


def test_the_line_for_another_delimiter_is_the_one_that_a_config_takes() -> None:
    Path("rows.csv").write_text("question\tanswer\nWhy?\tSo.\n", encoding="utf-8")
    short = "student: fake\nteachers: [{model: t, scorer: fake}]\ndata:\n"
    Path("config.yaml").write_text(f"{short}  path: rows.csv\n", encoding="utf-8")
    said = " ".join(call("check", "config.yaml", *AS_FAKES).output.split())
    line = said.partition("write `")[2].partition("` below `data:` in place of `path`")[0]
    Path("config.yaml").write_text(f"{short}  {line}\n", encoding="utf-8")
    assert call("check", "config.yaml", *AS_FAKES).exit_code == 0
