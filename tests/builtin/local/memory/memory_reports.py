"""Reports of the memory that plugins need, a card that runs are planned for, and a model that is not too narrow."""

from typing import Any

from helpers import tiny_models

from distillkit import MemoryReport, PlannedDevice, RunContext
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent

WIDER: dict[str, Any] = {
    **tiny_models.SMALL, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16,
}  # fmt: skip
"""Of a model wide enough for its layers to be what counts."""
H200 = PlannedDevice("h200-141gb", 143_771 * 2**20)


def report(plugin: LocalStudent | LocalScorer, run: RunContext) -> MemoryReport:
    found = plugin.memory(run)
    assert found is not None
    return found


def weights(found: MemoryReport) -> int:
    return sum(use.size_bytes for use in found.uses if use.part == "weights" and use.device != "cpu")
