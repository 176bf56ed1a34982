"""How many tokens training computes at once where nobody says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config

from distillkit.preflight.known_devices import planned_device
from distillkit_builtin.local.memory.micro_batch_size import default_micro_batch, has_wide_layers, micro_batch_tokens
from distillkit_builtin.local.model.footprint import Structure, model_structure
from distillkit_builtin.local.options import LocalStudentOptions

GIB = 2**30
A_LARGE_CARD = 80_000 * 2**20

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


@pytest.mark.parametrize(
    ("name", "memory", "lora", "all_weights"),
    [
        ("0.6B", 48 * GIB, 16_384, 16_384),
        ("1.7B", 48 * GIB, 6144, 16_384),
        ("8B", 48 * GIB, 4096, 16_384),
        ("0.6B", A_LARGE_CARD, 24_576, 24_576),
        ("1.7B", A_LARGE_CARD, 6144, 16_384),
        ("8B", A_LARGE_CARD, 4096, 16_384),
    ],
)
def test_as_many_as_keep_the_device_busy(
    name: str, memory: int, lora: int, all_weights: int, structure: Callable[[str], Structure]
) -> None:
    sizes, cuda = structure(name), torch.device("cuda")
    assert default_micro_batch(cuda, sizes, lora=True, memory=memory) == lora
    assert default_micro_batch(cuda, sizes, lora=False, memory=memory) == all_weights
    assert default_micro_batch(torch.device("cpu"), sizes, lora=True, memory=0) == 4096
    assert has_wide_layers(sizes) is (name == "8B")


@pytest.mark.usefixtures("structure")
def test_a_number_that_is_set_and_a_card_that_is_planned_for_are_taken(
    tmp_path: Path, structure: Callable[[str], Structure]
) -> None:
    structure("0.6B")
    options = LocalStudentOptions(model=str(tmp_path / "0.6B"))
    cuda = torch.device("cuda", 0)
    for card, tokens in (("h100-80gb", 24_576), ("24gb", 16_384)):
        assert micro_batch_tokens(options, cuda, planned_device(card)) == tokens
    chosen = options.model_copy(update={"micro_batch_tokens": 1000})
    assert micro_batch_tokens(chosen, cuda, planned_device("h100-80gb")) == 1000
    assert micro_batch_tokens(options, torch.device("cpu"), None) == 4096
