"""Runs with teachers, and with a sampler, on a real vLLM server."""

from pathlib import Path

import pytest

import distillkit
from servers.demo_config import SHORT, demo, http_teachers
from servers.killer import require_lossless
from servers.scoring import FLOAT32
from servers.server_process import TOP
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers


def test_the_demo_with_both_teachers_over_http_reaches_its_target(
    teacher_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    result = distillkit.run(demo(model, tmp_path, [], teachers=http_teachers(teacher_server.url, model)))
    before, after = result.eval["before"], result.eval["after"]
    assert after["reverse_kl"] < 0.6 * before["reverse_kl"]
    assert after["routes"]["short"]["pattern_rate"] > before["routes"]["short"]["pattern_rate"] + 0.3
    assert "teacher_rate" in after["routes"]["short"]
    assert (result.summary["failed_completions"], result.steps) == (0, 15)


def test_a_student_that_samples_from_vllm_learns(
    student_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    sampler = f"student.sampler={{name: vllm, base_url: '{student_server.url}'}}"
    result = distillkit.run(demo(model, tmp_path, [*SHORT, sampler, "train.max_steps=12"]))
    mismatches = [row["rollout/logprob_mismatch"] for row in result.metrics if "rollout/logprob_mismatch" in row]
    assert len(mismatches) == 12
    assert max(mismatches) < FLOAT32  # each step's adapter is the one that samples
    assert result.eval["after"]["reverse_kl"] < result.eval["before"]["reverse_kl"]


@pytest.mark.parametrize(("support", "scorer"), [("teacher_topk", "http"), ("student_topk", "local")])
def test_a_divergence_on_top_k_learns(
    teacher_server: VllmProcess,
    student_server: VllmProcess,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    support: str,
    scorer: str,
) -> None:
    """The teacher's top-K come from the teachers' server, or the student's from the one that samples."""
    monkeypatch.chdir(TOP)
    over = [*SHORT, f"student.sampler={{name: vllm, base_url: '{student_server.url}'}}", "train.max_steps=12"]
    over.append(f"loss={{name: divergence, support: {support}, k: 8}}")
    sections = {"teachers": http_teachers(teacher_server.url, model)} if scorer == "http" else {}
    result = distillkit.run(demo(model, tmp_path, over, **sections))
    assert (result.steps, result.summary["failed_completions"]) == (12, 0)
    assert result.eval["after"]["reverse_kl"] < result.eval["before"]["reverse_kl"]


def test_a_server_that_is_killed_and_started_again_costs_nothing_but_time(
    student_server: VllmProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TOP)
    sampler = {"name": "vllm", "base_url": student_server.url, "timeouts": {"retry": 500.0}}
    student = {"name": "local", "model": str(model), "lora_rank": 8, "learning_rate": 1e-3, "sampler": sampler}
    over = [*SHORT, "train.max_steps=4"]
    require_lossless(student_server, lambda killer: demo(model, tmp_path, over, student=student, sinks=[killer]))
