"""The recipe's own code, with other imports alone, against the loopback service."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import question, read_jsonl

from builtin.fireworks.runs import nothing_is_left, write_rows
from distillkit.errors import InputError
from distillkit.recipes.distillation_loop import (
    Config,
    DeployConfig,
    MultiTeacherConfig,
    RunnerConfig,
    TeacherConfig,
    TrainerConfig,
    main,
)
from distillkit_builtin.fireworks.recipe.environment import run_from_environment

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

MODULE = "distillkit.recipes.distillation_loop"
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
MODELS = ("qwen3-8b", "qwen3-32b", "qwen3p5-35b-a3b")
TOKENIZERS = ("Qwen/Qwen3-8B", "Qwen/Qwen3.5-35B-A3B")
RESULT = {
    "steps",
    "policy_job_id",
    "deployment_id",
    "eval",
    "max_seq_len",
    "training_shape_id",
    "deployment_shape",
}


@pytest.fixture
def fireworks(
    tmp_path: Path, tiny_model: str, other_tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator["LoopbackService"]:
    """The recipe's models, all tiny; its tokenizers are folders of the working directory."""
    import torch

    from distillkit_loopback.fireworks.service import LoopbackService

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    for tokenizer in TOKENIZERS:
        Path(tokenizer).mkdir(parents=True)
        for file in Path(tiny_model).glob("*token*"):
            shutil.copy(file, tokenizer)
        for file in Path(tiny_model).glob("chat_template*"):
            shutil.copy(file, tokenizer)
    models = {f"accounts/fireworks/models/{name}": tiny_model for name in MODELS}
    models["accounts/fireworks/models/qwen3-32b"] = other_tiny_model
    with LoopbackService(models, context_length=2048) as running:
        monkeypatch.setenv("FIREWORKS_BASE_URL", running.base_url)
        monkeypatch.setenv("FIREWORKS_API_KEY", "test-key")
        monkeypatch.setattr("distillkit_builtin.fireworks.control_plane.POLL_SECONDS", 0.05)
        yield running


def make(folder: Path, **over: Any) -> Config:
    """A small run of one teacher."""
    values: dict[str, Any] = {
        "log_path": str(folder / "logs"),
        "teacher_model": "accounts/fireworks/models/qwen3-32b",
        "trainer": TrainerConfig(training_shape_id="accounts/fireworks/trainingShapes/qwen3-8b-128k-h200"),
        "deployment": DeployConfig(tokenizer_model="Qwen/Qwen3-8B"),
        "max_completion_tokens": 4,
        "lora_rank": 8,
    }
    if "dataset" not in over:
        values["dataset"] = write_rows(folder, [question(f"number {i}") for i in range(4)])
    return Config(**values | over)


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


@pytest.mark.slow
def test_the_module_runs_as_a_program_configured_by_the_environment(
    fireworks: "LoopbackService", tmp_path: Path
) -> None:
    path = write_rows(tmp_path, [question("Hi.", who="accounts/fireworks/models/qwen3-32b")])
    settings = {
        "DISTILLATION_TEACHERS": "accounts/fireworks/models/qwen3-32b",
        "OPD_TEACHER_ROUTE_KEY": "who",
        "DISTILLATION_DATASET": path,
    }
    command = [sys.executable, "-m", MODULE]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.splitlines()[-1])) == RESULT


def test_a_wrong_dataset_in_the_environment_is_one_line_and_exit_code_2(
    fireworks: "LoopbackService", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISTILLATION_TEACHERS", "accounts/fireworks/models/qwen3-32b")
    monkeypatch.setenv("DISTILLATION_DATASET", "absent")
    assert run_from_environment() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: absent: no such file")


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


PROGRAM = """from distillkit.recipes.distillation_loop import Config, DeployConfig, TrainerConfig, main
import sys, time
def wait(context):
    print("waiting", flush=True)
    time.sleep(600)
main(Config(
    log_path=sys.argv[2], dataset=sys.argv[1], teacher_model="accounts/fireworks/models/qwen3-32b",
    trainer=TrainerConfig(training_shape_id="accounts/fireworks/trainingShapes/s"),
    deployment=DeployConfig(tokenizer_model="Qwen/Qwen3-8B"), max_completion_tokens=8, lora_rank=8,
    step_eval=wait, eval_before_training=True,
))
"""


INTERRUPTS = {"foreground": "", "background": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"}
"""A shell has interrupts ignored for a job in the background."""


@pytest.mark.slow
def test_sigterm_leaves_nothing_running(fireworks: "LoopbackService", tmp_path: Path) -> None:
    rows = write_rows(tmp_path, [question("Hi.")])
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", before + PROGRAM, rows, name],
            env=os.environ | {"COOKBOOK_STATUS_FILE": f"{name}.json"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, before in INTERRUPTS.items()
    }
    try:
        for process in processes.values():
            assert process.stdout is not None
            assert any(line.startswith("waiting") for line in process.stdout)
        assert len(fireworks.jobs) == 2
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        for name, process in processes.items():
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 1
            assert "Terminated by SIGTERM" in errors
            assert json.loads(Path(f"{name}.json").read_text())["code"] == 1
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    assert nothing_is_left(fireworks)


WRONG = """from distillkit.recipes.distillation_loop import Config, main
import sys
try:
    main(Config(log_path="logs", dataset=""))
except ValueError as error:
    print("caught:", type(error).__name__)
if "typo" in sys.argv:
    main(Config(log_path="logs", dataset="")).absent
raise KeyError("mine")
"""


@pytest.mark.parametrize(
    ("arguments", "last", "traceback"),
    [(["typo"], "error: dataset: is empty", False), ([], "KeyError: 'mine'", True)],
)
def test_a_users_error_ends_a_program_with_its_message_and_no_traceback(
    tmp_path: Path, arguments: list[str], last: str, traceback: bool
) -> None:
    command = [sys.executable, "-c", WRONG, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stdout == "caught: InputError\n"
    assert ("Traceback" in done.stderr) is traceback
    assert any(line.startswith(last) for line in done.stderr.splitlines())


def test_the_last_lines_say_what_was_done(
    fireworks: "LoopbackService", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(make(tmp_path))
    done, where = capsys.readouterr().out.splitlines()[-2:]
    assert done.startswith("done: 4 steps, 4 completions trained, ")
    assert where == f"model: {tmp_path}/logs/run/model"
