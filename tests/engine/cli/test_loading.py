"""What users of other tools type in the place of `key=value` is answered with it, and repeats no secret."""

import pytest
from typer.testing import CliRunner, Result

from distillkit.cli.main import app


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("command", ["run", "check", "diagnose"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rate", "1e-4"], "--learning_rate is no option of this command; keys of a config are written "),
        (["--learning_rate", "1e-4"], "key=value: student.learning_rate=1e-4\n"),
        (["--learning-rate=1e-4"], "key=value: student.learning_rate=1e-4\n"),
        (["--train.max_steps", "5"], "key=value: train.max_steps=5\n"),
        (["--num_generations", "4", "--max_new_tokens", "8"], "key=value: sampling.max_completion_tokens=8\n"),
        (["--output_dir", "sk-secret"], "key=value: log_path=...\n"),
        (
            ["--beta", "0.1"],
            "--beta is no option of this command; TRL's, of generalized JSD, is an option",
        ),
        (["--pluign", "x.py"], "--pluign is no option of this command; did you mean '--plugin'? Known: --"),
        (["train.max_steps", "5"], "train.max_steps: an override is one word with `=`: train.max_steps=5\n"),
        (["lr", "1e-4"], "lr: an override is one word with `=`: student.learning_rate=1e-4\n"),
        (["student.model", "sk-secret"], "student.model: an override is one word with `=`: student.model=...\n"),
    ],
)
def test_words_of_other_tools(command: str, words: list[str], message: str) -> None:
    done = call(command, "config.yaml", *words)
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert message in done.output
    assert "secret" not in done.output


def test_the_demo_too() -> None:
    assert "key=value: train.max_steps=3\n" in call("demo", "--max_steps", "3").output


def test_options_and_files_stay_what_they_are() -> None:
    assert "absent.yaml: no such config file" in call("run", "absent.yaml", "--resume").output
    assert "foo: no such config file" in call("run", "foo").output
    assert "Train a student" in call("run", "config.yaml", "--help").output
