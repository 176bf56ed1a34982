"""The recipe's own code, with other imports alone, against the loopback service."""

import asyncio
import json
import re
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import question, read_jsonl

from builtin.fireworks.runs import nothing_is_left, write_rows
from distillkit.errors import InputError
from distillkit.recipes.distillation_loop import (
    MultiTeacherConfig,
    RunnerConfig,
    TeacherConfig,
    main,
)

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

from builtin.fireworks.recipe.recipe_runs import MODULE, RESULT, make

SINGLE = """
from training.recipes.distillation_loop import Config, main
from training.utils import DeployConfig, TrainerConfig

cfg = Config(
    log_path="./distillation_logs",
    base_model="accounts/fireworks/models/qwen3-8b",
    teacher_model="accounts/fireworks/models/qwen3-32b",
    dataset="/path/to/prompts.jsonl",
    trainer=TrainerConfig(
        training_shape_id="accounts/fireworks/trainingShapes/qwen3-8b-128k-h200",
    ),
    deployment=DeployConfig(tokenizer_model="Qwen/Qwen3-8B"),
    max_rows=100,
    epochs=1,
)

main(cfg)
"""


ROUTED = """
from training.recipes.distillation_loop import Config, main
from training.utils import DeployConfig, TrainerConfig
from training.utils.distillation import MultiTeacherConfig, TeacherConfig

cfg = Config(
    log_path="./mopd_logs",
    base_model="accounts/fireworks/models/qwen3p5-35b-a3b",
    teacher_model="",
    dataset="/path/to/routed_prompts.jsonl",
    multi_teacher=MultiTeacherConfig(
        route_key="teacher",
        teachers=[
            TeacherConfig(
                model="accounts/fireworks/models/qwen3p5-35b-a3b",
                route_value="math-teacher",
                tokenizer_model="Qwen/Qwen3.5-35B-A3B",
            ),
            TeacherConfig(
                model="accounts/fireworks/models/qwen3p5-35b-a3b",
                route_value="arithmetic-teacher",
                tokenizer_model="Qwen/Qwen3.5-35B-A3B",
            ),
        ],
    ),
    trainer=TrainerConfig(
        training_shape_id="accounts/fireworks/trainingShapes/qwen3p5-35b-a3b-256k-lora",
    ),
    deployment=DeployConfig(tokenizer_model="Qwen/Qwen3.5-35B-A3B"),
    lora_rank=8,
    prompt_groups_per_step=2,
    completions_per_prompt=1,
)

main(cfg)
"""


ROWS = [
    {
        "messages": [{"role": "user", "content": "Solve 6 * 7. End with exactly one line: Final: <answer>."}],
        "expected_answer": "42",
    },
    question("Solve 5 * 7.", extra_info={"from": "here"}),
]


ROUTED_ROWS = [
    {
        "messages": [{"role": "user", "content": "Solve 6 * 7. End with exactly one line: Final: <answer>."}],
        "teacher": "math-teacher",
        "teacher_messages": [
            {
                "role": "user",
                "content": "Solve 6 * 7. The correct answer is 42. Explain briefly, then end with Final: 42.",
            }
        ],
        "expected_answer": "42",
    },
    {
        "messages": [{"role": "user", "content": "Solve 18 + 24. End with Final: <answer>."}],
        "teacher": "arithmetic-teacher",
        "expected_answer": "42",
    },
]


def run_block(code: str, folder: Path) -> dict[str, Any]:
    """Run a block of the recipe's page: other imports, and its placeholder paths in `folder`."""
    code = re.sub(r"from training\.\S+ import", f"from {MODULE} import", code)
    names: dict[str, Any] = {}
    exec(code.replace("/path/to", str(folder)).replace("\nmain(cfg)", "\nresult = main(cfg)"), names)
    result: dict[str, Any] = names["result"]
    return result


def test_the_single_teacher_block_runs(fireworks: "LoopbackService", tmp_path: Path) -> None:
    write_rows(tmp_path, ROWS, "prompts.jsonl")
    result = run_block(SINGLE, tmp_path)
    assert set(result) == RESULT
    assert result["steps"] == 2
    assert result["max_seq_len"] == 2048
    assert result["eval"] == {}
    assert result["training_shape_id"] == "accounts/fireworks/trainingShapes/qwen3-8b-128k-h200"
    assert str(result["deployment_shape"]).startswith("accounts/")
    assert nothing_is_left(fireworks)
    entries = read_jsonl(tmp_path / "distillation_logs/run/samples.jsonl")
    assert [entry["question"] for entry in entries] == [row["messages"][0]["content"] for row in ROWS]  # in file order


def test_the_routed_block_runs_on_one_shared_deployment(fireworks: "LoopbackService", tmp_path: Path) -> None:
    write_rows(tmp_path, ROUTED_ROWS, "routed_prompts.jsonl")
    result = run_block(ROUTED, tmp_path)
    assert result["steps"] == 1
    samples = {sample["route"]: sample for sample in read_jsonl(tmp_path / "mopd_logs/run/samples.jsonl")}
    assert set(samples) == {"math-teacher", "arithmetic-teacher"}
    assert "The correct answer is 42" in samples["math-teacher"]["teacher_prompts"]["math-teacher"]
    (row,) = read_jsonl(tmp_path / "mopd_logs/run/recipe_metrics.jsonl")
    scored = [value for name, value in row.items() if name.startswith("teacher_route/") and name.endswith("/scored")]
    assert scored == [1, 1]
    made = [
        request for request in fireworks.requests if request.method == "POST" and request.path.endswith("/deployments")
    ]
    assert len(made) == 2


def test_callbacks_get_the_recipes_context_in_a_thread_without_a_loop(
    fireworks: "LoopbackService", tmp_path: Path
) -> None:
    seen: list[tuple[str, int]] = []

    def evaluate(context: dict[str, Any]) -> dict[str, Any]:
        assert threading.current_thread() is not threading.main_thread()
        messages = context["dataset"][0]["messages"]

        async def sample(who: str) -> Any:
            return await context[who].sample_with_tokens(messages=messages, n=1, max_tokens=4, logprobs=True)

        samples = [asyncio.run(sample(who))[0] for who in ("student_sampler", "teacher_sampler")]
        assert all(len(sampled.full_tokens) > sampled.prompt_len for sampled in samples)
        assert context["tokenizer"].decode([50])
        assert context["teacher_samplers"][context["config"].teacher_model] is context["teacher_sampler"]
        seen.append(("step", context["global_step"]))
        assert set(context) == {
            "config",
            "dataset",
            "student_sampler",
            "teacher_sampler",
            "student_model",
            "teacher_model",
            "teacher_samplers",
            "teacher_models",
            "teacher_messages_keys",
            "teacher_route_key",
            "is_multi_teacher",
            "tokenizer",
            "global_step",
            "max_seq_len",
        }
        return {"eval/accuracy": len(seen) / 10, "note": "kept"}

    def last(context: dict[str, Any]) -> dict[str, Any]:
        seen.append(("post", context["global_step"]))
        return {"final": True, "records": [1, 2]}

    cfg = make(
        tmp_path,
        step_eval=evaluate,
        step_eval_interval=1,
        weight_sync_interval=2,
        eval_before_training=True,
        post_training_eval=last,
    )
    result = main(cfg)
    assert seen == [("step", 0), ("step", 2), ("step", 4), ("post", 4)]
    assert result["eval"] == {"final": True, "records": [1, 2]}
    run = tmp_path / "logs/run"
    assert [row["eval/accuracy"] for row in read_jsonl(run / "metrics.jsonl") if "eval/accuracy" in row] == [
        0.1,
        0.2,
        0.3,
    ]
    mine = [row for row in read_jsonl(run / "recipe_metrics.jsonl") if "train/step" not in row]
    assert [row["step"] for row in mine] == [0, 2, 4, 4]
    assert mine[-1] == {"step": 4, "final": 1.0}


def test_what_a_callback_raises_ends_the_run_and_leaves_nothing_running(
    fireworks: "LoopbackService", tmp_path: Path
) -> None:
    def fail(context: dict[str, Any]) -> dict[str, Any]:
        raise LookupError("no such answer")

    with pytest.raises(LookupError, match="no such answer"):
        main(make(tmp_path, post_training_eval=fail))
    assert nothing_is_left(fireworks)

    cfg = make(tmp_path, log_path=str(tmp_path / "other"), post_training_eval=lambda context: 0.5)  # type: ignore[arg-type,return-value]  # wrong on purpose
    with pytest.raises(InputError, match="post_training_eval: gives float, not a dict"):
        main(cfg)


def test_the_recipes_metrics_and_the_runners_files(fireworks: "LoopbackService", tmp_path: Path) -> None:
    files = {name: str(tmp_path / "out" / name) for name in ("status", "metadata", "metrics", "model")}
    runner = RunnerConfig(files["status"], files["metadata"], files["metrics"], files["model"])
    result = main(make(tmp_path, runner=runner, opd_loss_scale=2.0, output_model_id="my-student"))
    rows = read_jsonl(tmp_path / "logs/run/recipe_metrics.jsonl")
    assert rows == read_jsonl(Path(files["metrics"]))
    engine = read_jsonl(tmp_path / "logs/run/metrics.jsonl")
    assert [row["train/step"] for row in rows] == [1, 2, 3, 4]
    for ours, theirs in zip(rows, engine, strict=True):
        assert ours["train/opd_sampled_reverse_kl"] == theirs["train/reverse_kl"]
        assert ours["train/opd_teacher_logprob_minus_student_logprob"] == -theirs["train/reverse_kl"]
        assert ours["train/opd_advantage"] == pytest.approx(-2 * theirs["train/reverse_kl"], rel=1e-4)
        assert ours["train/opd_abs_logprob_gap"] == pytest.approx(ours["train/opd_abs_advantage"] / 2)
        assert ours["train/opd_active_tokens"] == theirs["train/active_tokens"]
        names = {
            f"train/opd_{name}" for name in ("student_logprob_minus_teacher_logprob", "teacher_nll", "sampling_nll")
        }
        assert ours["perf/fwd_bwd_time"] == theirs["time/forward_backward"]
        assert ours["perf/optim_step_time"] == theirs["time/optim_step"]
        names |= {"perf/weight_sync_time", "concurrency/window", "concurrency/requests"}
        assert names <= set(ours)
    assert json.loads(Path(files["status"]).read_text()) == {
        "code": 0,
        "message": "done",
        "details": [{"@type": "type.googleapis.com/gateway.JobProgress", "percent": 100}],
    }
    tokens = sum(row["train/opd_active_tokens"] for row in rows)
    assert json.loads(Path(files["metadata"]).read_text())["metadata"]["tokens"] == tokens
    assert json.loads(Path(files["model"]).read_text()) == {
        "model_id": "my-student",
        "checkpoint": "step-4",
        "job_id": result["policy_job_id"],
    }


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


def test_main_goes_on_from_a_checkpoint_and_works_inside_a_running_loop(
    fireworks: "LoopbackService", tmp_path: Path
) -> None:
    calls: list[int] = []

    def stop_at_three(context: dict[str, Any]) -> dict[str, Any]:
        calls.append(context["global_step"])
        if calls == [1, 2, 3]:
            raise KeyError("the machine is gone")
        return {}

    cfg = make(tmp_path, step_eval=stop_at_three, step_eval_interval=1, dcp_save_interval=2)
    with pytest.raises(KeyError):
        main(cfg)

    async def notebook() -> dict[str, Any]:
        return main(cfg)

    assert asyncio.run(notebook())["steps"] == 4
    assert calls == [1, 2, 3, 3, 4]
    rows = [row for row in read_jsonl(tmp_path / "logs/run/recipe_metrics.jsonl") if "train/step" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]


def test_a_run_without_a_checkpoint_is_not_replaced(fireworks: "LoopbackService", tmp_path: Path) -> None:
    def fail(context: dict[str, Any]) -> dict[str, Any]:
        raise LookupError

    cfg = make(tmp_path, step_eval=fail, step_eval_interval=1)
    with pytest.raises(LookupError):
        main(cfg)
    shutil.rmtree(tmp_path / "logs/run/checkpoints")  # as of a run that was killed soon
    with pytest.raises(InputError, match=r"log_path: .* holds a run without a checkpoint"):
        main(cfg)


def test_trainer_and_deployments_are_left_running_where_that_is_asked_for(
    fireworks: "LoopbackService", tmp_path: Path
) -> None:
    result = main(make(tmp_path), cancel_on_exit=False)
    assert set(fireworks.jobs) == {result["policy_job_id"]}
    assert set(fireworks.deployments) == {result["deployment_id"], "distillation-teacher-qwen3-32b"}
