"""The probe on real small models: it finds nothing wrong, and no number of the run changes by a bit."""

import json
from collections.abc import Callable
from typing import Any

import distillkit
from distillkit import RunConfig, RunResult

Make = Callable[..., RunConfig]
TOKENS = {"completions_per_prompt": 2, "max_completion_tokens": 8}


def numbers(result: RunResult) -> Any:
    metrics = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]
    return metrics, (result.run_dir / "adapter/adapter_model.safetensors").read_bytes()


def test_a_probed_run_has_the_same_bits_and_its_teacher_says_the_same_again(local_config: Make) -> None:
    rows = {"at_start": "always", "rows": 4}  # too few to say that none ends, as a random model seldom does
    probed = distillkit.run(local_config(name="probed", probe=rows, sampling=TOKENS))
    other = distillkit.run(local_config(name="other", probe={"at_start": "never"}, sampling=TOKENS))
    assert numbers(probed) == numbers(other)
    figures = json.loads((probed.run_dir / "probe.json").read_text())["figures"]
    (teacher,) = figures["teachers"]
    assert set(teacher["asked_again"]) == {"again", "reversed", "alone"}
    assert max(apart["largest"] for apart in teacher["asked_again"].values()) < 1e-4
    assert teacher["asked_again"]["again"]["largest"] == 0.0
    assert teacher["gap"]["mean_abs"] > 0.01  # of two random models
    assert figures["sampling"]["log_evidence"] < figures["sampling"]["threshold"]


def test_a_teacher_that_is_the_student_has_no_gap_and_no_verdict(local_config: Make, tiny_model: str) -> None:
    teacher = {"model": tiny_model, "scorer": {"name": "local", "dtype": "float32", "device": "cpu"}}
    result = distillkit.run(local_config(teachers=[teacher], probe={"at_start": "always", "rows": 4}))
    written = json.loads((result.run_dir / "probe.json").read_text())
    assert written["figures"]["teachers"][0]["gap"]["mean_abs"] < 1e-4
    assert {verdict["what"] for verdict in written["verdicts"]} <= {"nothing", "endings"}
