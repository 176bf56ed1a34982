from pathlib import Path

import pytest
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit.cli.reporting import OUT

SCRIPT = '''
from typing import ClassVar

from pydantic import Field

from distillkit import Loss


class Gap(Loss):
    """A gap."""

    name: ClassVar[str] = "gap"
    sign: float = Field(-1.0, description="Of the loss.")

    def minimises(self):
        return lambda student, teacher, sampling: (student.exp() * (student - teacher)).sum(-1)

    def inputs(self, completion):
        return {"gap": completion.teacher_logprobs - completion.rollout.logprobs}

    def token_loss(self):
        return lambda positions, options: options["sign"] * positions.logprobs * positions.inputs["gap"]
'''
OTHERS = '''
class OfAService(Gap):
    """Of a service."""

    name: ClassVar[str] = "of_a_service"

    def token_loss(self):
        return None


class Required(Gap):
    """Has an option without a default."""

    name: ClassVar[str] = "required"
    size: int = Field(description="Of what.")
'''


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(OUT, "_width", 200)  # COLUMNS is read when a console is made
    path = tmp_path / "gap.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return str(path)


def prove(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["plugins", "prove", *words])
    return done.exit_code, done.output


def test_a_loss_that_does_what_it_says_is_proven_check_by_check(script: str) -> None:
    code, out = prove("gap", "-p", script)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "loss gap, with 1 teacher"
    assert lines[2].split() == ["check", "result", "why"]
    assert sum(" passed " in line for line in lines) == 8
    assert lines[-1] == "proven"


def test_a_size_that_is_given_is_one_of_those_that_are_looked_at_and_it_is_said() -> None:
    code, out = prove("divergence", "support=union", "k=4")
    assert code == 0
    assert "k runs from 1 to 5, whatever it is set to (here 4): the vocabulary is 6 tokens" in out
    assert "in 5 of 10 cases: those with 1 teacher" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (["advantage_clip=0.5"], "nothing is claimed (minimises() is None); all other checks passed"),
        (
            ["control=constant", "control_advantage=-0.2"],
            "nothing is claimed (minimises() is None), and nothing of teacher felt, equal teacher; all other checks "
            "passed",
        ),
    ],
)
def test_a_loss_that_claims_nothing_is_not_called_proven(script: str, words: list[str], verdict: str) -> None:
    code, out = prove("importance_sampling", *words)
    assert (code, out.splitlines()[-1]) == (0, verdict)


def test_a_check_that_fails_says_why_and_makes_exit_code_1(script: str) -> None:
    code, out = prove("gap", "sign=2", "-p", script)
    assert code == 1
    (line,) = (line for line in out.splitlines() if " failed " in line)
    assert "expected gradient" in line
    assert "points the other way (cosine -1.000000, ratio 2)" in line
    assert out.splitlines()[-1] == "not proven: expected gradient"


def test_all_proves_every_loss_at_its_defaults(script: str) -> None:
    Path(script).write_text(SCRIPT + OTHERS, encoding="utf-8")
    code, out = prove("--all", "-p", script)
    found = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert code == 0
    assert "importance_sampling" in found
    assert "  passed  " in found["gap"]
    assert "nothing claimed  nothing is claimed (minimises() is None)" in found["topk_cross_entropy"]
    assert "not looked at" in found["of_a_service"]
    assert "it has no token_loss" in found["of_a_service"]
    assert "not looked at    loss.size: " in found["required"]
    Path(script).write_text(SCRIPT.replace("-1.0", "1.0"), encoding="utf-8")
    code, out = prove("--all", "-p", script)
    assert code == 1
    assert "failed           expected gradient: points the other way" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "no loss is named 'nothing'"),
        (("gap", "sing=1"), "loss.sing: "),
        (("gap", "sign"), "wants section.key=value"),
        ((), "name a loss, or give --all; there are divergence, "),
        (("gap", "--all"), "give a name, or --all"),
    ],
)
def test_wrong_words_are_exit_code_2_and_said(script: str, words: tuple[str, ...], message: str) -> None:
    code, out = prove(*words, "-p", script)
    assert code == 2
    assert message in out


def test_what_has_nothing_to_look_at_is_refused_when_it_is_named(script: str) -> None:
    Path(script).write_text(SCRIPT + OTHERS, encoding="utf-8")
    code, out = prove("of_a_service", "-p", script)
    assert (code, "loss 'of_a_service' cannot be proven: it has no token_loss" in out) == (2, True)
    misspelt = SCRIPT + '\n    def needs(self):\n        return {"fulll": 1}\n'
    Path(script).write_text(misspelt, encoding="utf-8")
    code, out = prove("gap", "-p", script)
    assert (code, "did you mean 'full' by 'fulll'?" in " ".join(out.split())) == (2, True)
