"""Runs with teachers, and with a sampler, on a real SGLang server."""

from pathlib import Path

import pytest

import distillkit
from servers.demo_config import SHORT, demo, http_teachers
from servers.killer import require_lossless
from servers.scoring import FLOAT32
from servers.server_process import TOP
from servers.sglang.sglang_process import SGLangProcess

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("loss", ["importance_sampling", "divergence"])
def test_student_and_teachers_on_one_server_learn(
    server: SGLangProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    monkeypatch.chdir(TOP)
    over = [*SHORT, f"student.sampler={{name: sglang, base_url: '{server.root}'}}", "train.max_steps=8"]
    if loss == "divergence":
        over.append("loss={name: divergence, support: teacher_topk, k: 8}")
    result = distillkit.run(demo(model, tmp_path, over, teachers=http_teachers(server.root, model, dialect="sglang")))
    mismatches = [row["rollout/logprob_mismatch"] for row in result.metrics if "rollout/logprob_mismatch" in row]
    assert (result.steps, len(mismatches), result.summary["failed_completions"]) == (8, 8, 0)
    assert max(mismatches) < FLOAT32  # each step's adapter is the one that samples
    assert result.eval["after"]["reverse_kl"] < result.eval["before"]["reverse_kl"]


@pytest.mark.parametrize("lora_rank", [8, 0], ids=["an adapter", "all weights"])
def test_a_server_that_is_killed_and_started_again_costs_nothing_but_time(
    server: SGLangProcess, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora_rank: int
) -> None:
    monkeypatch.chdir(TOP)
    sampler = {"name": "sglang", "base_url": server.root, "timeouts": {"retry": 500.0}}
    rate = 1e-3 if lora_rank else 1e-5
    student = {"name": "local", "model": str(model), "lora_rank": lora_rank, "learning_rate": rate, "sampler": sampler}
    over = [*SHORT, "train.max_steps=4"]
    try:
        require_lossless(server, lambda killer: demo(model, tmp_path, over, student=student, sinks=[killer]))
    finally:
        if not lora_rank:  # the next test's base model is the one that it was started with
            server.kill()
            server.start()
            server.wait()
