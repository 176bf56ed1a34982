"""Runs of the recipe against the loopback service: data, configs and models."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import question

from builtin.fireworks.runs import write_rows
from distillkit.recipes.distillation_loop import Config, DeployConfig, TrainerConfig

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


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
