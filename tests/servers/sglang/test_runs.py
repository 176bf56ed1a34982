"""Runs with teachers, and with a sampler, on a real SGLang server."""

from pathlib import Path

import pytest

import distillkit
from servers.demo_config import demo, http_teachers
from servers.killer import require_lossless
from servers.scoring import FLOAT32
from servers.sglang.sglang_process import SGLangProcess
from servers.short_rows import RATE, on_short_rows

pytestmark = pytest.mark.servers


@pytest.mark.parametrize(
    ("loss", "steps", "most"),
    [
        ("importance_sampling", 32, 0.9),  # 0.40 to 0.68 on the local backend, over six seeds
        ("{name: divergence, support: teacher_topk, k: 8}", 16, 0.75),  # 0.44 to 0.59
    ],
    ids=["importance_sampling", "divergence"],
)
def test_student_and_teachers_on_one_server_learn(
    server: SGLangProcess, tiny: Path, tmp_path: Path, rows: str, loss: str, steps: int, most: float
) -> None:
    sampler = f"student.sampler={{name: sglang, base_url: '{server.root}'}}"
    over = [*on_short_rows(rows), sampler, "sampling.max_completion_tokens=16", f"loss={loss}"]
    over += [f"train.max_steps={steps}", f"train.prompt_groups_per_step={256 // steps}"]
    teachers = http_teachers(server.root, tiny, server.name, dialect="sglang")
    result = distillkit.run(demo(tiny, tmp_path, over, teachers=teachers))
    mismatches = [row["rollout/logprob_mismatch"] for row in result.metrics if "rollout/logprob_mismatch" in row]
    assert (result.steps, len(mismatches), result.summary["failed_completions"]) == (steps, steps, 0)
    assert max(mismatches) < FLOAT32  # each step's adapter is the one that samples
    assert result.eval["after"]["reverse_kl"] < most * result.eval["before"]["reverse_kl"]


@pytest.mark.parametrize("lora_rank", [8, 0], ids=["an adapter", "all weights"])
def test_a_server_that_is_killed_and_started_again_costs_nothing_but_time(
    server: SGLangProcess, tiny: Path, tmp_path: Path, rows: str, lora_rank: int
) -> None:
    """Killed while it samples: completions of the tiny model are long, and end by themselves here and there."""
    sampler = {"name": "sglang", "base_url": server.root, "timeouts": {"retry": 500.0}}
    student = {"name": "local", "model": str(tiny), "lora_rank": lora_rank, "learning_rate": RATE, "sampler": sampler}
    over = [*on_short_rows(rows), "sampling.max_completion_tokens=256", "train.max_steps=4"]
    over.append("train.prompt_groups_per_step=4")
    try:
        require_lossless(server, lambda killer: demo(tiny, tmp_path, over, student=student, sinks=[killer]))
    finally:
        server.wait()
        if not lora_rank:  # the next test's base model is the one that it was started with
            server.give_back_weights()
