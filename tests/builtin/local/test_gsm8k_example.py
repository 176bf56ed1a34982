"""The GSM8K example as it stands, with a tiny model in the place of Qwen's."""

from pathlib import Path

import pytest
from helpers import tiny_models

import distillkit
from distillkit.config.load import load_config

TOP = Path(__file__).parents[3]
SMALL = [
    "data.max_rows=8",
    "data.max_eval_rows=6",
    "student.learning_rate=0.005",
    "student.device=cpu",
    "student.dtype=float32",
    "sampling.max_completion_tokens=24",
    "train.max_steps=20",
    "data.epochs=20",
    "train.prompt_groups_per_step=8",
    "train.eval_every=0",
    "train.save_every=0",
    "sinks=[]",
]


def test_the_student_finds_the_teachers_solutions_likelier_after_training_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    text = (TOP / "examples/gsm8k_privileged/config.yaml").read_text(encoding="utf-8")
    text = text.replace("route_value: solution}", "route_value: solution, scorer: {name: local, dtype: float32}}")
    config.write_text(
        text.replace("Qwen/Qwen3-0.6B", tiny_models.write_model(tmp_path / "model", context=2048)), encoding="utf-8"
    )
    monkeypatch.chdir(TOP)
    resolved, _ = load_config([config], [*SMALL, f"log_path={tmp_path}/runs/{{name}}"])
    result = distillkit.run(resolved)
    before, after = result.eval["before"], result.eval["after"]
    assert before["trace_nll_gap"] == pytest.approx(before["trace_student_nll"] - before["trace_teacher_nll"])
    assert before["trace_teacher_nll"] == after["trace_teacher_nll"]
    assert 0 < after["trace_nll_gap"] < 0.95 * before["trace_nll_gap"]
    assert after["reverse_kl"] < 0.8 * before["reverse_kl"]
    assert (after["traces_missing"], after["no_answer_fraction"]) == (0.0, 1.0)
