"""Mode `topk_forward_kl` of the recipe, against the loopback service."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import read_jsonl

from builtin.fireworks.runs import nothing_is_left
from distillkit.recipes.distillation_loop import MultiTeacherConfig, TeacherConfig, main

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService
from builtin.fireworks.recipe.recipe_runs import make


def test_topk_forward_kl_trains_on_the_blended_top_k_of_all_teachers(
    fireworks: "LoopbackService", tmp_path: Path, tiny_model: str, other_tiny_model: str
) -> None:
    """What is sent is, position by position, what the recipe's documentation makes of both models' own logprobs."""
    teachers = [
        TeacherConfig(model="accounts/fireworks/models/qwen3-32b", route_value="a", blend_weight=3.0),
        TeacherConfig(model="accounts/fireworks/models/qwen3-8b", route_value="b"),
    ]
    several = MultiTeacherConfig(teachers)
    mode: Any = "topk_forward_kl"
    main(make(tmp_path, teacher_model="", multi_teacher=several, distill_mode=mode, sdft_top_k=3))
    assert nothing_is_left(fireworks)
    (first, *_) = [request.body for request in fireworks.requests if request.path.endswith("/forward_backward")]
    wire: Any = first["forward_backward_input"]  # type: ignore[index,call-overload]  # JSON
    assert (wire["loss_fn"], wire.get("loss_fn_config")) == ("cross_entropy", None)
    positions = 0
    for datum in wire["data"]:
        ids = datum["model_input"]["chunks"][0]["tokens"]
        targets, weights = (
            np.reshape(datum["loss_fn_inputs"][name]["data"], datum["loss_fn_inputs"][name]["shape"])
            for name in ("target_tokens", "weights")
        )
        tables = [logprobs_of(model, ids) for model in (other_tiny_model, tiny_model)]
        for at in np.flatnonzero(weights.any(axis=1)):
            wanted = blended([table[at] for table in tables], [3.0, 1.0], 3)
            assert targets[at].tolist() == list(wanted)
            assert weights[at].tolist() == pytest.approx(list(wanted.values()), abs=1e-4)
            positions += 1
    (row, *_) = read_jsonl(tmp_path / "logs/run/recipe_metrics.jsonl")
    assert (row["train/sdft_active_positions"], row["train/sdft_top_k"]) == (positions, 3)
    assert not [name for name in row if name.startswith("train/opd_")]


def logprobs_of(model: str, ids: list[int]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([ids])).logits[0]
    return logits.double().log_softmax(-1).numpy()


def blended(logprobs: list[Any], shares: list[float], k: int) -> dict[int, float]:
    """Id to weight at one position: each teacher's top-k alone, added by share, the k largest, made to sum to 1."""
    pooled: dict[int, float] = {}
    for table, share in zip(logprobs, shares, strict=True):
        best = np.argsort(-table, kind="stable")[:k]
        mass = np.exp(table[best]).sum()
        for index in best.tolist():
            pooled[index] = pooled.get(index, 0.0) + share * float(np.exp(table[index]) / mass)
    kept = dict(sorted(pooled.items(), key=lambda item: -item[1])[:k])
    return {index: weight / sum(kept.values()) for index, weight in kept.items()}
