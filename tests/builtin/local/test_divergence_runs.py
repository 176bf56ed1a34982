"""Whole runs of losses over distributions, on a tiny transformer: they bring the student closer to its teacher."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from conftest import question

import distillkit
from distillkit import RunConfig

LOSSES: Mapping[str, Mapping[str, Any]] = {
    "reverse": {"name": "divergence"},
    "jsd at a temperature": {"name": "divergence", "direction": "jsd", "temperature": 1.5},
    "teacher's top-k": {"name": "divergence", "support": "teacher_topk", "k": 16},
    "student's top-k": {"name": "divergence", "support": "student_topk", "k": 16},
    "union": {"name": "divergence", "direction": "forward", "support": "union", "k": 16},
    "entropy_aware": {"name": "entropy_aware"},
    "entropy_aware, top-k": {"name": "entropy_aware", "support": "teacher_topk", "k": 16},
    "topk_cross_entropy": {"name": "topk_cross_entropy", "k": 16},
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_the_student_gets_closer_to_its_teacher(
    local_config: Callable[..., RunConfig], jsonl: Callable[..., str], loss: Mapping[str, Any]
) -> None:
    held_out = jsonl([question(f"held out {i}") for i in range(16)], "heldout.jsonl")
    result = distillkit.run(
        local_config(
            loss=dict(loss),
            data={"eval_path": held_out, "epochs": 16},
            sampling={"completions_per_prompt": 4},
            train={"prompt_groups_per_step": 8},
        )
    )
    before, after = (result.eval[stage]["reverse_kl"] for stage in ("before", "after"))
    assert after < 0.92 * before  # 16 steps come to 0.50 to 0.78 of it with three seeds


def test_a_run_says_what_a_loss_without_its_tail_minimises(local_config: Callable[..., RunConfig]) -> None:
    loss = {"name": "divergence", "support": "teacher_topk", "k": 4, "tail": False}
    config = local_config(loss=loss, train={"max_steps": 1})
    wanted = "loss divergence without its tail (tail: false): its sum over the top-K alone falls"
    assert any(note.startswith(wanted) for note in distillkit.check(config).notes)
    assert wanted in (distillkit.run(config).run_dir / "run.log").read_text(encoding="utf-8")
