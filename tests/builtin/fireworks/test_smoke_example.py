"""`examples/routed_mopd/train_two_teacher_lora.py` against the loopback service."""

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import read_jsonl

from builtin.fireworks.conftest import SHAPE, STUDENT, TEACHER
from builtin.fireworks.runs import nothing_is_left

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

SCRIPT = Path(__file__).parents[3] / "examples" / "routed_mopd" / "train_two_teacher_lora.py"


def test_it_runs_to_its_end(
    service: "LoopbackService", tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIREWORKS_BASE_URL", service.base_url)
    monkeypatch.setenv("BASE_MODEL", STUDENT)
    logs = tmp_path / "logs"
    result = runpy.run_path(str(SCRIPT))["smoke"](
        [
            *("--log-path", str(logs), "--tokenizer-model", tiny_model, "--training-shape", SHAPE),
            *("--arithmetic-teacher", TEACHER, "--max-completion-tokens", "8"),
        ]
    )
    assert result["steps"] == 2
    assert (logs / "dataset.jsonl").is_file()
    assert {entry["route"] for entry in read_jsonl(logs / "run" / "ledger.jsonl")} == {
        "math-teacher",
        "arithmetic-teacher",
    }
    assert nothing_is_left(service)
