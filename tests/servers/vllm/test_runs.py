"""Runs with teachers, and with a sampler, on real vLLM servers of the tiny model."""

import json
from pathlib import Path

import pytest

import distillkit
from servers.demo_config import demo, http_teachers
from servers.killer import require_lossless
from servers.scoring import FLOAT32
from servers.short_rows import RATE, on_short_rows
from servers.vllm.vllm_process import VllmProcess

pytestmark = pytest.mark.servers
LIKELIER = r"[\r\x1c\x1d*vUuF27<\x06]"
"""What a teacher's completions have more often than the untrained student's: 12 of the tiny model's bytes."""


def short(rows: str, steps: int) -> list[str]:
    """The demo's sections, on rows for the tiny model."""
    return [
        *on_short_rows(rows),
        "sampling.max_completion_tokens=16",
        "train.prompt_groups_per_step=16",
        f"train.max_steps={steps}",
    ]


def test_a_student_of_two_teachers_over_http_learns_from_both(
    teacher_server: VllmProcess, tiny: Path, tmp_path: Path, rows: str
) -> None:
    over = [*short(rows, 32), "train.prompt_groups_per_step=8", "data.max_eval_rows=256"]
    pattern = {"name": "pattern", "patterns": {"short": LIKELIER}, "finished_only": False}
    over.append(f"evaluators=[reverse_kl, {json.dumps(pattern)}]")
    result = distillkit.run(demo(tiny, tmp_path, over, teachers=http_teachers(teacher_server.url, tiny)))
    before, after = result.eval["before"], result.eval["after"]
    # On the local backend, over six seeds: 0.44 to 0.51 of the gap; rates 0.13 to 0.28 and 0.13 to 0.24 above `was`
    assert after["reverse_kl"] < 0.6 * before["reverse_kl"]
    was, is_now = (found["routes"]["short"]["pattern_rate"] for found in (before, after))
    assert is_now > was
    assert after["routes"]["short"]["teacher_rate"] > was
    assert (result.summary["failed_completions"], result.steps) == (0, 32)


def test_a_student_that_samples_from_vllm_learns(
    student_server: VllmProcess, tiny: Path, tmp_path: Path, rows: str
) -> None:
    sampler = f"student.sampler={{name: vllm, base_url: '{student_server.url}'}}"
    result = distillkit.run(demo(tiny, tmp_path, [*short(rows, 16), sampler]))
    mismatches = [row["rollout/logprob_mismatch"] for row in result.metrics if "rollout/logprob_mismatch" in row]
    assert len(mismatches) == 16
    assert max(mismatches) < FLOAT32  # each step's adapter is the one that samples
    # On the local backend, over six seeds: 0.43 to 0.62
    assert result.eval["after"]["reverse_kl"] < 0.8 * result.eval["before"]["reverse_kl"]


@pytest.mark.parametrize(("support", "scorer"), [("teacher_topk", "http"), ("student_topk", "local")])
def test_a_divergence_on_top_k_learns(
    teacher_server: VllmProcess,
    student_server: VllmProcess,
    tiny: Path,
    tmp_path: Path,
    rows: str,
    support: str,
    scorer: str,
) -> None:
    """The teacher's top-K come from the teachers' server, or the student's from the one that samples."""
    over = [*short(rows, 16), f"student.sampler={{name: vllm, base_url: '{student_server.url}'}}"]
    over.append(f"loss={{name: divergence, support: {support}, k: 8}}")
    sections = {"teachers": http_teachers(teacher_server.url, tiny)} if scorer == "http" else {}
    result = distillkit.run(demo(tiny, tmp_path, over, **sections))
    assert (result.steps, result.summary["failed_completions"]) == (16, 0)
    # On the local backend, over six seeds: 0.44 to 0.53 with the teacher's, 0.58 to 0.66 with the student's
    assert result.eval["after"]["reverse_kl"] < 0.8 * result.eval["before"]["reverse_kl"]


def test_a_server_that_is_killed_and_started_again_costs_nothing_but_time(
    student_server: VllmProcess, tiny: Path, tmp_path: Path, rows: str
) -> None:
    """Killed while it samples: completions of the tiny model are long, and end by themselves here and there."""
    sampler = {"name": "vllm", "base_url": student_server.url, "timeouts": {"retry": 500.0}}
    student = {"name": "local", "model": str(tiny), "lora_rank": 8, "learning_rate": RATE, "sampler": sampler}
    over = [*short(rows, 4), "sampling.max_completion_tokens=256", "train.prompt_groups_per_step=4"]
    try:
        require_lossless(student_server, lambda killer: demo(tiny, tmp_path, over, student=student, sinks=[killer]))
    finally:
        student_server.wait()
