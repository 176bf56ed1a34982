"""How `run` ends where the run fails: its error, its log, and the command to go on with."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

from engine.cli.conftest import BROKEN, FAKE_TEACHER, FAKES, call


def test_a_failed_run_ends_with_the_error_its_log_and_how_to_go_on(broken: Callable[..., str]) -> None:
    name = broken("ZeroDivisionError")
    done = call("run", name)
    assert done.exit_code == 1, done.output
    error, *notes, log, go_on, command = done.output.splitlines()[-5:]
    assert error == "failed: ZeroDivisionError: a bug (-v shows the traceback)"
    assert "raised by scorer 'broken'" in notes[0]
    assert log == "log: runs/fake/run.log"
    assert (go_on, command) == ("go on after step 1 with:", f"  distillkit run {name} --resume")
    assert "Traceback" in Path("runs/fake/run.log").read_text()
    assert json.loads(Path("runs/fake/summary.json").read_text())["status"] == "failed"


def test_wrong_input_that_shows_in_mid_run_points_to_the_log_too(broken: Callable[..., str]) -> None:
    name = broken("InputError")
    done = call("run", name)
    assert done.exit_code == 2, done.output
    assert done.output.splitlines()[-4:] == [
        "error: a bug",
        "log: runs/fake/run.log",
        "go on after step 1 with:",
        f"  distillkit run {name} --resume",
    ]
    refused = call("run", name)
    assert refused.exit_code == 2
    assert "log: " not in refused.output  # that run did not begin
    assert "go on after" not in call("run", name, "--resume").output  # just tried


def test_the_command_to_go_on_with_is_exact(broken: Callable[..., str], tmp_path: Path) -> None:
    words = [broken("ZeroDivisionError", plugins=[]), "sampling.stop=['a b']", "-p", FAKES, "-p", "broken.py"]
    done = call("-v", "run", *words, "-q")
    assert done.exit_code == 1, done.output
    shown = done.output.splitlines()[-1]
    assert shlex.split(shown) == ["distillkit", "run", *words, "-v", "-q", "--resume"]
    (tmp_path / "broken.py").write_text(BROKEN.replace("> 0", "> 9"), encoding="utf-8")
    assert call(*shlex.split(shown)[1:]).exit_code == 0


def test_a_failure_without_a_run_points_to_no_log(config: Callable[..., str], tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "from distillkit.testing import FakeStudent\n"
        "class Broken(FakeStudent):\n    '''Broken.'''\n    name = 'broken'\n"
        "    def check(self, run):\n        raise ZeroDivisionError('a bug')\n",
        encoding="utf-8",
    )
    name = config(student={"name": "broken"}, plugins=[FAKES, "broken.py"], teachers=FAKE_TEACHER)
    for command in ("check", "run"):
        done = call(command, name)
        assert done.exit_code == 1
        assert "failed: ZeroDivisionError: a bug (-v shows the traceback)" in done.output
        assert "log" not in done.output
        assert "Traceback" in call(command, name, "-v").output
