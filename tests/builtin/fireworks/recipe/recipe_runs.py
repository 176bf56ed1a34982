"""Runs of the recipe against the loopback service: data and configs."""

from pathlib import Path
from typing import Any

from conftest import question

from builtin.fireworks.runs import write_rows
from distillkit.recipes.distillation_loop import Config, DeployConfig, TrainerConfig

MODULE = "distillkit.recipes.distillation_loop"
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
