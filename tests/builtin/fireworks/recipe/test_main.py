"""`main` as the recipe's, against the loopback service: its callbacks, its files, and how it goes on."""

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import read_jsonl

from builtin.fireworks.runs import nothing_is_left
from distillkit.errors import InputError
from distillkit.recipes.distillation_loop import RunnerConfig, main

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService
from builtin.fireworks.recipe.recipe_runs import make


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
