"""The recipe's `main` in a process of its own: its environment, signals, exit codes and last lines."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import question

from builtin.fireworks.runs import nothing_is_left, write_rows
from distillkit.recipes.distillation_loop import main
from distillkit_builtin.fireworks.recipe.environment import run_from_environment

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

from builtin.fireworks.recipe.recipe_runs import MODULE, RESULT, make


@pytest.mark.slow
def test_the_module_runs_as_a_program_configured_by_the_environment(
    fireworks: "LoopbackService", tmp_path: Path
) -> None:
    path = write_rows(tmp_path, [question("Hi.", who="accounts/fireworks/models/qwen3-32b")])
    settings = {
        "DISTILLATION_TEACHERS": "accounts/fireworks/models/qwen3-32b",
        "OPD_TEACHER_ROUTE_KEY": "who",
        "DISTILLATION_DATASET": path,
    }
    command = [sys.executable, "-m", MODULE]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == RESULT


def test_a_wrong_dataset_in_the_environment_is_one_line_and_exit_code_2(
    fireworks: "LoopbackService", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTILLATION_TEACHERS", "accounts/fireworks/models/qwen3-32b")
    monkeypatch.setenv("DISTILLATION_DATASET", "absent")
    assert run_from_environment() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: data.path: absent: no such file")


PROGRAM = """from distillkit.recipes.distillation_loop import Config, DeployConfig, TrainerConfig, main
import sys, time
def wait(context):
    print("waiting", flush=True)
    time.sleep(600)
main(Config(
    log_path=sys.argv[2], dataset=sys.argv[1], teacher_model="accounts/fireworks/models/qwen3-32b",
    trainer=TrainerConfig(training_shape_id="accounts/fireworks/trainingShapes/s"),
    deployment=DeployConfig(tokenizer_model="Qwen/Qwen3-8B"), max_completion_tokens=8, lora_rank=8,
    step_eval=wait, eval_before_training=True,
))
"""


INTERRUPTS = {"foreground": "", "background": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"}
"""A shell has interrupts ignored for a job in the background."""


@pytest.mark.slow
def test_sigterm_leaves_nothing_running(fireworks: "LoopbackService", tmp_path: Path) -> None:
    rows = write_rows(tmp_path, [question("Hi.")])
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", before + PROGRAM, rows, name],
            env=os.environ | {"COOKBOOK_STATUS_FILE": f"{name}.json"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, before in INTERRUPTS.items()
    }
    try:
        for process in processes.values():
            assert process.stdout is not None
            assert any(line.startswith("waiting") for line in process.stdout)
        assert len(fireworks.jobs) == 2
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in processes.items():
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 1
            assert "Terminated by SIGTERM" in errors
            assert json.loads(Path(f"{name}.json").read_text())["code"] == 1
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    assert nothing_is_left(fireworks)


WRONG = """from distillkit.recipes.distillation_loop import Config, main
import sys
try:
    main(Config(log_path="logs", dataset=""))
except ValueError as error:
    print("caught:", type(error).__name__)
if "typo" in sys.argv:
    main(Config(log_path="logs", dataset="")).absent
raise KeyError("mine")
"""


@pytest.mark.parametrize(
    ("arguments", "last", "traceback"),
    [(["typo"], "error: dataset: is empty", False), ([], "KeyError: 'mine'", True)],
)
def test_a_users_error_ends_a_program_with_its_message_and_no_traceback(
    tmp_path: Path, arguments: list[str], last: str, traceback: bool
) -> None:
    command = [sys.executable, "-c", WRONG, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stdout == "caught: InputError\n"
    assert ("Traceback" in done.stderr) is traceback
    assert any(line.startswith(last) for line in done.stderr.splitlines())


def test_the_last_lines_say_what_was_done(
    fireworks: "LoopbackService", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(make(tmp_path))
    done, where = capsys.readouterr().out.splitlines()[-2:]
    assert done.startswith("done: 4 steps, 4 completions trained, ")
    assert where == f"model: {tmp_path}/logs/run/model"
