"""What a token's experts take while it is computed."""

from typing import Any

import pytest
from transformers import AutoConfig

from distillkit_builtin.local.memory.inference_sizes import routed_numbers


@pytest.mark.parametrize(
    ("kind", "over", "width"),
    [
        ("qwen3_moe", {"moe_intermediate_size": 48}, 48),
        ("mixtral", {"intermediate_size": 96}, 96),
        ("ernie4_5_vl_moe_text", {"moe_intermediate_size": [48, 24], "moe_k": 2}, 48),  # of text, of pictures
    ],
)
def test_experts_of_any_family_are_counted_by_the_widest(kind: str, over: dict[str, Any], width: int) -> None:
    config = AutoConfig.for_model(kind, hidden_size=64, num_experts_per_tok=2, **over)
    assert routed_numbers(config) == 2 * (2 * 64 + 3 * width)
