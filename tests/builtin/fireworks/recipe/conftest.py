"""The loopback service with the recipe's models."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builtin.fireworks.recipe.recipe_runs import MODELS, TOKENIZERS

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


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
        yield running
