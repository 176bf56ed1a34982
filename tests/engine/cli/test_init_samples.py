"""`distillkit init` without data of one's own: sample rows that teach in few steps, and copies of examples."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from distillkit.cli.examples import example_names, examples_path
from distillkit.cli.main import app

FAKES = str(Path(__file__).parents[2] / "helpers" / "fake_plugins.py")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), terminal_width=200)


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def as_fakes() -> list[str]:
    """Words by which the config that is here needs no model."""
    teachers = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))["teachers"]
    scorers = [f"teachers.{number}.scorer=fake" for number in range(len(teachers))]
    return ["student=fake", *scorers, "sampling.chat_template_kwargs={}", "-p", FAKES]


@pytest.mark.parametrize(("teachers", "kinds"), [("1", 1), ("2", 2)])
def test_the_sample_run_is_16_steps_with_evaluations_before_between_and_after(teachers: str, kinds: int) -> None:
    assert call("init", "--teachers", teachers).exit_code == 0
    train, held_out = read("train.jsonl"), read("heldout.jsonl")
    assert (len(train), len(held_out)) == (64 * kinds, 16 * kinds)
    asked = [row["messages"][-1]["content"] for row in [*train, *held_out]]
    assert len(set(asked)) == len(asked)
    checked = call("check", "config.yaml", *as_fakes())
    assert checked.exit_code == 0, checked.output
    assert " 16, 128 rows and 256 completions in all" in checked.output
    assert "evaluations     3;" in checked.output
    assert "warning: " not in checked.output


@pytest.mark.parametrize("teachers", ["1", "2"])
def test_what_a_teacher_reads_shows_other_answers_and_not_this_one(teachers: str) -> None:
    call("init", "--teachers", teachers)
    for row in [*read("train.jsonl"), *read("heldout.jsonl")]:
        (reads,) = (row[key] for key in ("teacher_messages", "writing_messages") if key in row)
        *shown, asked = reads
        assert [asked] == row["messages"]
        assert [message["role"] for message in shown] == ["user", "assistant"] * (len(shown) // 2)
        assert asked not in shown


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("teachers", ["1", "2"])
def test_the_first_look_is_a_command_that_check_takes_too(
    teachers: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path / "a cache"))
    model = tmp_path / "a cache/models/SmolLM2-135M-Instruct-Q4_1"
    if there:
        model.mkdir(parents=True)
    done = call("init", "mine", "--teachers", teachers)
    assert ("`distillkit demo` makes the model" in done.output) is not there
    (command,) = (line for line in done.output.splitlines() if line.startswith("  distillkit run"))
    _, _, *words = shlex.split(command)
    monkeypatch.chdir("mine")
    overrides = [word for word in words[1:] if not word.startswith("student.")]
    assert [word for word in words if word.endswith(f"model={model}")] == words[1:-1]
    assert call("check", words[0], *overrides, *as_fakes()).exit_code == 0
    assert all(part in done.output for part in ("`model`", "--from DATA", "`learning_rate`", "steps"))


@pytest.mark.parametrize("name", example_names())
def test_an_example_is_copied_and_its_paths_work_where_it_lies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = call("init", "copy", "--example", name)
    assert done.output.splitlines()[-1] == "next: cd copy && distillkit check config.yaml"
    source = examples_path() / name
    there = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {path.relative_to("copy") for path in Path("copy").rglob("*") if path.is_file()} == there
    monkeypatch.chdir("copy")
    assert not [path for path in Path().glob("*.*") if f"examples/{name}/" in path.read_text(encoding="utf-8")]
    checked = call("check", "config.yaml", "evaluators=[]", *as_fakes())
    assert checked.exit_code == 0, checked.output


def test_an_example_that_is_not_there_or_does_not_fit_is_refused() -> None:
    unknown = call("init", "new", "--example", "routed")
    assert unknown.exit_code == 2
    assert f"Known: {', '.join(example_names())}" in unknown.output
    for option in (["--from", "rows.jsonl"], ["--teachers", "1"]):
        refused = call("init", "new", "--example", "routed_mopd", *option)
        assert refused.exit_code == 2
        assert f"{option[0]} has no place" in refused.output
    assert not Path("new").exists()
    Path("questions").mkdir()
    Path("questions/list.txt").write_text("mine", encoding="utf-8")
    assert "questions/list.txt already" in call("init", "--example", "routed_mopd").output
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == ["questions/list.txt"]
