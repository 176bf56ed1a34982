"""How many tokens training computes at once where nobody says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config

from distillkit_builtin.local.footprint import Structure, model_structure
from distillkit_builtin.local.micro_batch_size import default_micro_batch, has_wide_layers

WIDTHS = {"0.6B": (1024, 3072, 16), "1.7B": (2048, 6144, 16), "8B": (4096, 12288, 32)}


@pytest.fixture
def structure(tmp_path: Path) -> Callable[[str], Structure]:
    def of(name: str) -> Structure:
        hidden, width, heads = WIDTHS[name]
        Qwen3Config(
            hidden_size=hidden, intermediate_size=width, num_hidden_layers=2, num_attention_heads=heads,
            num_key_value_heads=8, head_dim=128, vocab_size=512,
        ).save_pretrained(tmp_path / name)  # fmt: skip
        return model_structure(str(tmp_path / name))

    return of


@pytest.mark.parametrize(("name", "tokens"), [("0.6B", 16_384), ("1.7B", 6144), ("8B", 4096)])
def test_a_lora_takes_as_many_as_keep_the_device_busy(
    name: str, tokens: int, structure: Callable[[str], Structure]
) -> None:
    sizes, cuda = structure(name), torch.device("cuda")
    assert default_micro_batch(cuda, sizes, lora=True) == tokens
    assert default_micro_batch(cuda, sizes, lora=False) == 16_384
    assert default_micro_batch(torch.device("cpu"), sizes, lora=True) == 4096
    assert has_wide_layers(sizes) is (name == "8B")
