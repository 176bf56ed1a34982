"""`eval`, `generate` and `export` on a run of the fakes: the run's own files stay, and nothing is trained."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from conftest import question, read_jsonl
from helpers import fake_plugins
from typer.testing import CliRunner, Result

from distillkit.cli.main import app
from distillkit.cli.reporting import OUT
from distillkit_builtin.evaluators.reverse_kl import ReverseKL

FAKES = fake_plugins.__file__


def call(*arguments: str, columns: int = 80) -> Result:
    with patch.object(OUT, "_width", columns):  # COLUMNS is read when a console is made
        return CliRunner().invoke(app, list(arguments))


def done(*arguments: str, columns: int = 80) -> str:
    result = call(*arguments, columns=columns)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture
def config(tmp_path: Path, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.chdir(tmp_path)
    data = jsonl([question(f"number {i}", teacher="ab"[i % 2]) for i in range(8)])
    held_out = jsonl([question(f"held out {i}", teacher="ab"[i % 2]) for i in range(4)], "heldout.jsonl")

    def write(**over: Any) -> str:
        values = {
            "name": "fake",
            "data": {"path": data, "eval_path": held_out},
            "student": {"name": "fake", "learning_rate": 30.0},
            "teachers": [
                {"model": "m", "route_value": "a", "scorer": {"name": "fake", "likes": "abc"}},
                {"model": "m", "route_value": "b", "scorer": {"name": "fake", "likes": "xyz"}},
            ],
            "sampling": {"max_completion_tokens": 20},
            "train": {"prompt_groups_per_step": 2, "save_every": 2, "keep_last": 2},
            "plugins": [FAKES],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**values, **over}), encoding="utf-8")
        return "config.yaml"

    return write


@pytest.fixture
def run(config: Callable[..., str]) -> Path:
    """A run of four steps, with checkpoints after the second and the fourth."""
    done("run", config(), "-q")
    return Path("runs/fake")


def content(folder: Path) -> Mapping[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_eval_of_the_last_step_is_the_evaluation_after_training(run: Path) -> None:
    held, summary = content(run), json.loads((run / "summary.json").read_text())
    out = done("eval", "runs/fake")
    result = json.loads((run / "evaluations/step-4.json").read_text())
    assert result["eval"] == summary["eval"]["after"]
    assert result["before"] == summary["eval"]["before"]
    last = read_jsonl(run / "metrics.jsonl")[-1]
    assert result["metrics"] == {name: value for name, value in last.items() if name.startswith("eval")}
    measure = ReverseKL.measures["reverse_kl"]
    before, now = (summary["eval"][stage]["reverse_kl"] for stage in ("before", "after"))
    (line,) = [line for line in out.splitlines() if line.startswith(f"{measure.label} ") and " all " in line]
    assert line.split() == [*measure.label.split(), "all", *measure.both(before, now).split(" -> ")]
    assert "reverse_kl" not in out  # people read what a run and its verdict call it
    assert all(len(line) <= 80 for line in out.splitlines())
    assert {path: held[path] for path in held} == {path: text for path, text in content(run).items() if path in held}
    assert content(run).keys() - held.keys() == {run / "evaluations/step-4.json"}


def test_eval_of_an_earlier_step_and_of_the_start(run: Path) -> None:
    done("eval", "runs/fake", "--step", "2", "--out", "two.json")
    done("eval", "runs/fake", "--step", "0")
    two, start = json.loads(Path("two.json").read_text()), json.loads((run / "evaluations/step-0.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    assert (two["step"], start["step"], start["weights"]) == (2, 0, None)
    assert start["eval"] == summary["eval"]["before"]
    assert two["eval"]["reverse_kl"] not in [summary["eval"][stage]["reverse_kl"] for stage in ("before", "after")]
    assert "there are those of steps 2 and 4" in refused("eval", "runs/fake", "--step", "3")


def test_eval_of_a_config_is_its_student_as_it_starts(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    held = content(run)
    assert "wrote other-eval-start.json" in done("eval", "config.yaml", "name=other")
    assert json.loads(Path("other-eval-start.json").read_text())["eval"] == summary["eval"]["before"]
    assert content(run) == held
    assert sorted(path.name for path in Path("runs").iterdir()) == ["fake"]
    assert "--step N goes with the directory of a run" in refused("eval", "config.yaml", "--step", "2")


def test_an_evaluation_is_not_replaced_unless_it_is_named_and_goes_with_its_run(run: Path) -> None:
    done("eval", "runs/fake")
    message = refused("eval", "runs/fake")
    assert "runs/fake/evaluations/step-4.json holds an evaluation already; name a file by --out" in message
    done("eval", "runs/fake", "--out", "runs/fake/evaluations/step-4.json")
    done("run", "config.yaml", "--overwrite", "-q")
    assert not (run / "evaluations").exists()


def test_what_was_measured_otherwise_is_not_compared(run: Path) -> None:
    result = call("eval", "runs/fake", "sampling.max_completion_tokens=9", "--out", "e.json")
    assert result.exit_code == 0, result.output
    assert "note: not compared with before training: sampling.max_completion_tokens was 20, is 9" in result.stderr
    assert json.loads(Path("e.json").read_text())["before"] is None
    assert "before" not in result.stdout
    message = refused("eval", "runs/fake", "student.learning_rate=1", "--out", "e.json")
    assert "the weights are those of another student:\n  student.learning_rate was 30.0, is 1.0" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", "absent"], "absent: no such directory; name the directory of a run"),
        (["eval", "absent.yaml"], "absent.yaml: no such config file"),
        (["eval", "runs/fake", "config.yaml"], "name the directory of one run, such as runs/my-run, or config files"),
        (["run", "runs/fake"], "runs/fake: is a directory, and a config is a file; the config in it is runs/fake/con"),
        (["generate", "config.yaml"], "config.yaml: is a file, and a run is a directory; name the directory of a run,"),
        (
            ["export", "runs/fake/config.yaml", "--to", "x"],
            "a directory (that of this file is runs/fake); name",
        ),
        (["generate", "absent"], "absent: no such directory; name the directory of a run, such as runs/my-run"),
        (["generate", "."], ". holds no run: it has no config.yaml that a run wrote; name one"),
        (["export", ".", "--merge", "x"], ". holds no run"),
        (["export", "runs/fake"], "name where to write: --merge DIR for a whole model, or --to DIR"),
        (["export", "runs/fake", "--merge", "x"], "student 'fake' has logits and no model that they could be merged"),
        (["export", "runs/fake", "--to", "x"], "runs/fake/adapter is that export already; --merge writes a whole"),
        (["export", "runs/fake", "--to", "runs", "--step", "2"], "runs is there already; name a directory that is not"),
        (["export", "runs/fake", "--to", "x", "--step", "0"], "--step 0: nothing was trained then"),
        (["generate", "runs/fake", "--step", "0"], "--step 0 is the student as it started"),
        (["eval", "runs/fake", "evaluators=[]"], "evaluators: the config has none; name some"),
        (["eval", "runs/fake", "--learning_rate", "1"], "key=value: student.learning_rate=1"),
        (["eval", "runs/fake", "trian.max_steps=1"], "trian: unknown key; did you mean 'train'?"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(run: Path, words: list[str], message: str) -> None:
    held = content(Path())
    assert message in refused(*words)
    assert content(Path()) == held


def test_generate_shows_both_sides_with_the_seeds_of_the_evaluations(run: Path) -> None:
    held = content(run)
    found = json.loads(done("generate", "runs/fake", "--json", "--rows", "2"))
    assert [each["question"] for each in found] == ["held out 0", "held out 1"]
    samples = [sample for sample in read_jsonl(run / "samples.jsonl") if sample["split"] == "heldout"]
    for each in found:
        mine = {sample["step"]: sample["text"] for sample in samples if sample["question"] == each["question"]}
        assert (each["before"]["text"], each["after"]["text"]) == (mine[0], mine[4])
        assert each["before"]["text"] != each["after"]["text"]
    assert content(run) == held


def test_generate_asks_what_is_typed_and_takes_sampling_options(run: Path) -> None:
    words = ["generate", "runs/fake", "--question", "one?", "--question", "zw\u00f6lf?", "--json"]
    shown = done(*words, "sampling.max_completion_tokens=5")
    assert shown.isascii()  # so that it can be read whatever standard output's encoding is
    one, two = json.loads(shown)
    assert (one["question"], two["question"]) == ("one?", "zw\u00f6lf?")
    assert one["before"]["text"] != two["before"]["text"]
    assert one["after"] | {"text": ""} == {"text": "", "tokens": 5, "finish_reason": "length"}


def test_generate_needs_no_teacher_and_for_a_question_no_data(run: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").unlink()
    done("generate", "runs/fake", "--question", "hi", "teachers=[{model: gone, scorer: {name: fake, context: 1}}]")


@pytest.mark.parametrize("columns", [80, 140])
def test_generate_fits_the_terminal(run: Path, columns: int) -> None:
    out = done("generate", "runs/fake", "--rows", "1", columns=columns)
    lines = out.splitlines()
    assert all(len(line) <= columns for line in lines)
    heads = [line for line in lines if "before (" in line or "after step 4 (" in line]
    assert len(heads) == (1 if columns == 140 else 2)


def test_export_writes_the_weights_of_an_earlier_step(run: Path) -> None:
    held = content(run)
    out = done("export", "runs/fake", "--to", "there", "--step", "2")
    assert out.startswith("adapter after step 2: there/adapter (")
    saved = (run / "checkpoints/step-2/student/fake.safetensors").read_bytes()
    assert Path("there/adapter/fake.safetensors").read_bytes() == saved
    assert content(run) == held


def test_a_run_without_checkpoints_says_what_there_is(run: Path) -> None:
    for path in (run / "checkpoints").iterdir():
        path.rename(path.with_name(f".{path.name}"))
    message = refused("eval", "runs/fake", "--out", "e.json")
    assert "student 'fake' does not start from what it exported (runs/fake/adapter); keep a checkpoint" in message
    (run / "summary.json").unlink()
    assert "runs/fake holds no weights: no checkpoint and no export" in refused("generate", "runs/fake")


def test_from_elsewhere_the_error_says_where_the_run_began(
    config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("run", config(data={"path": "train.jsonl", "eval_path": "heldout.jsonl"}), "-q")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    message = refused("eval", str(tmp_path / "runs/fake"))
    assert "no such file" in message
    assert f"the run began in {tmp_path}, where its relative paths start: go there for this command" in message
