"""Commands as one types them: `run`, `check`, `plugins`, `init`, and their exit codes."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question, read_jsonl

from engine.cli.conftest import FAKES, call, verdict_of


def test_run_prints_where_it_writes_first_and_what_to_do_next_last(config: Callable[..., str]) -> None:
    done = call("run", config())
    assert done.exit_code == 0, done.output
    lines = done.output.strip().splitlines()
    assert lines[0] == "run directory: runs/fake"
    said = verdict_of("runs/fake")
    assert lines[-len(said) :] == said
    done_at = len(lines) - len(said) - 3
    assert lines[done_at].startswith("done: 3 steps, 6 completions trained, 0 failed, ")
    assert lines[done_at + 1] == "adapter: runs/fake/adapter (its README.md shows how to load it)"
    assert lines[done_at + 2] == "report: runs/fake/report.html"
    steps = [line for line in lines if re.match(r"\d\d:\d\d:\d\d step ", line)]
    assert len(steps) == 3
    assert all("reverse KL" in line and "length" in line and "tok/s" in line and "ETA" in line for line in steps)
    assert "held-out prompts before training" in done.output
    assert "held-out prompts after training" in done.output


def test_a_run_ends_well_on_a_terminal_without_our_letters(config: Callable[..., str]) -> None:
    arguments = [sys.executable, "-m", "distillkit", "run", config()]
    encoding = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(arguments, env=os.environ | encoding, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"(\xb1 is the standard error" in done.stdout


def test_overrides_scripts_and_quiet(config: Callable[..., str]) -> None:
    name = config(plugins=[])
    done = call("run", name, "train.max_steps=1", "name=short", "-p", FAKES, "-q")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == "run directory: runs/short"
    assert done.output.splitlines()[4:] == verdict_of("runs/short")  # a result is no progress
    assert len(read_jsonl(Path("runs/short/metrics.jsonl"))) == 2
    written = yaml.safe_load(Path("runs/short/config.yaml").read_text(encoding="utf-8"))
    assert [sink["name"] for sink in written["sinks"]] == ["console", "report"]


def test_later_files_win(config: Callable[..., str], tmp_path: Path) -> None:
    base = config()
    (tmp_path / "more.yaml").write_text("name: merged\ntrain: {max_steps: 1}\n", encoding="utf-8")
    assert call("run", base, "more.yaml").exit_code == 0
    assert Path("runs/merged/summary.json").is_file()


@pytest.mark.parametrize(
    ("over", "arguments", "message"),
    [
        ({"trian": {}}, [], "config.yaml:"),
        ({"trian": {}}, [], "trian: unknown key; did you mean 'train'?"),
        ({}, ["router.name=feild"], "no router is named 'feild'; did you mean 'field'?"),
        ({}, ["student.learning_rat=1"], "student.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ({}, ["data.path=absent.jsonl"], "data.path: absent.jsonl: no such file"),
        ({}, ["absent.yaml"], "absent.yaml: no such config file"),
        ({}, ["-p", "absent.py"], "plugin script absent.py is not there"),
        ({}, ["teachers.0.route_value=b", "router=field"], "no teacher has the route value 'a'"),
        ({}, ["sampling.max_completion_tokens=5000"], "more than the 4096 that the student reads"),
        ({}, ["log_path=config.yaml"], "config.yaml is a file; choose another log_path"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_wrong_input_is_exit_code_2_without_a_traceback(
    config: Callable[..., str], over: dict[str, Any], arguments: list[str], message: str, command: str
) -> None:
    done = call(command, config(**over), *arguments)
    assert done.exit_code == 2, done.output
    assert message in done.output
    assert "Traceback" not in done.output
    assert not Path("runs/fake").exists()


def test_a_run_is_not_written_over_and_can_be_replaced(config: Callable[..., str]) -> None:
    name = config()
    assert call("run", name).exit_code == 0
    again = call("run", name)
    assert again.exit_code == 2
    for option in ("--resume", "--overwrite", "name="):
        assert option in again.output
    assert call("run", name, "--overwrite").exit_code == 0
    assert call("run", "runs/fake/config.yaml", "name=third").exit_code == 0


def test_check_shows_costs_and_a_prompt_of_each_side(config: Callable[..., str], jsonl: Callable[..., str]) -> None:
    secret = [{"role": "user", "content": "PRIVILEGED"}]
    data = jsonl([question("PLAIN", teacher="a", teacher_messages=secret), question("x", teacher="a")])
    done = call("check", config(data=data))
    assert done.exit_code == 0, done.output
    student, _, teacher = done.output.partition("the student reads")[2].partition("teacher 'a' reads")
    assert "<|im_start|>user\nPLAIN<|im_end|>" in student
    assert "PRIVILEGED" not in student
    assert "PRIVILEGED" in teacher
    assert "tokens sampled" in done.output
    assert "tokens scored" in done.output
    assert "evaluations" not in done.output
    assert "note: teacher 'a': 1 of 2 rows has no teacher_messages; scored under messages" in done.output
    assert "warning: no held-out rows" in done.output
    assert done.output.strip().endswith("check: ok")
    assert not Path("runs").exists()


def test_a_run_says_notes_and_warnings_as_check_does(config: Callable[..., str]) -> None:
    done = call("run", config(data={"path": "train.jsonl"}, evaluators=[]))
    assert done.exit_code == 0, done.output
    log = Path("runs/fake/run.log").read_text(encoding="utf-8")
    note, warning = "teacher 'a': 6 of 6 rows have no teacher_messages", "no held-out rows, so that"
    assert f" note: {note}" in done.output
    assert f" warning: {warning}" in done.output
    kinds = {said: line for line in log.splitlines() for said in (note, warning) if said in line}
    assert "WARNING" not in kinds[note]
    assert "WARNING" in kinds[warning]


def test_check_counts_evaluations_in(config: Callable[..., str]) -> None:
    done = call("check", config(), "train.eval_every=1")
    assert "evaluations     4; besides, 96 tokens sampled and " in done.output
    assert "that teachers write" not in done.output


def test_check_says_what_it_costs_by_the_users_prices_alone(config: Callable[..., str]) -> None:
    assert "at most by your prices" not in call("check", config()).output
    prices = {"sample_per_million_tokens": 1e6, "score_per_million_tokens": 2.5, "currency": "EUR"}
    done = call("check", config(prices=prices), "evaluators=[]")
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert (
        " cost 48.00 EUR at most by your prices, sampling 48.00, scoring 0.00 not in it training (no price), " in text
    )
    every_step = call("check", config(prices=prices), "train.eval_every=1").output
    assert "not in it training (no price), what is paid by the hour" in " ".join(every_step.split())
    assert "144.00 EUR at most" in every_step  # 96 tokens more, of four evaluations


def test_plugins_list_is_for_people_and_programs(config: Callable[..., str]) -> None:
    listed = json.loads(call("plugins", "list", "--json", "-p", FAKES).output)
    assert listed["broken"] == []
    by_name = {(plugin["role"], plugin["name"]): plugin for plugin in listed["plugins"]}
    assert set(by_name["router", "field"]) == {"role", "name", "class", "distribution", "version", "description"}
    assert by_name["router", "field"]["class"] == "distillkit_builtin.routers.FieldRouter"
    assert by_name["router", "field"]["distribution"] == "distillkit"
    assert ("student", "fake") in by_name
    text = call("plugins", "list").output
    assert "importance_sampling" in text
    assert "fake" not in text


def test_plugins_list_names_what_cannot_be_chosen(tmp_path: Path) -> None:
    script = tmp_path / "half.py"
    script.write_text(
        "from distillkit import Router\n\n\nclass Half(Router):\n    name = 'half'\n    def rout(self): ...\n"
    )
    (listed,) = json.loads(call("plugins", "list", "--json", "-p", str(script)).output)["incomplete"]
    assert (listed["role"], listed["name"]) == ("router", "half")
    assert listed["error"] == "does not implement route (it has rout: misspelt?)"
    text = call("plugins", "list", "-p", str(script)).output
    assert f"cannot be chosen: router half: {listed['class']} {listed['error']}" in text


def test_plugins_show_lists_options() -> None:
    shown = call("plugins", "show", "loss", "importance_sampling").output
    for part in ("ratio_log_cap", "20.0", "advantage_clip", "number" if False else "float"):
        assert part in shown
    missing = call("plugins", "show", "router", "feild")
    assert missing.exit_code == 2
    assert "did you mean 'field'?" in missing.output


def test_the_schema_knows_every_plugin_and_accepts_the_example() -> None:
    schema = json.loads(call("config", "schema").output)
    assert schema["required"] == ["data", "student", "teachers"]
    assert "route_key" in json.dumps(schema["$defs"]["router-field"])
    assert "x-distillkit-role" not in json.dumps(schema)


@pytest.mark.parametrize("teachers", ["1", "2"])
def test_init_writes_a_config_that_checks(teachers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("init", "mine", "--teachers", teachers)
    assert done.exit_code == 0, done.output
    assert "next: cd mine && distillkit check config.yaml" in done.output
    assert "next: cd 'my run' && distillkit" in call("init", "my run").output
    again = call("init", "mine")
    assert again.exit_code == 2
    assert "config.yaml, train.jsonl, heldout.jsonl already" in again.output
    monkeypatch.chdir(tmp_path / "mine")
    fakes = ["-p", FAKES, "student.name=fake"]
    written = yaml.safe_load(Path("config.yaml").read_text())
    written["student"] = {"name": "fake"}
    Path("fake.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    checked = call("check", "fake.yaml", *fakes)
    assert checked.exit_code == 0, checked.output
    assert call("run", "fake.yaml", "-q", *fakes).exit_code == 0


def test_help_teaches() -> None:
    text = call("--help").output
    for part in ("distillkit init", "distillkit check", "distillkit run", "distillkit demo"):
        assert part in text
    assert call("--version").output.startswith("distillkit 0.")
    assert call().exit_code == 2 or "Usage" in call().output
    assert call("run").exit_code == 2
