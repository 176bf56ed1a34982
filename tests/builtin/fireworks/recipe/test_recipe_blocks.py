"""The recipe's own code, with other imports alone, against the loopback service."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import question, read_jsonl

from builtin.fireworks.runs import nothing_is_left, write_rows

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService
from builtin.fireworks.recipe.recipe_runs import MODULE, RESULT

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
