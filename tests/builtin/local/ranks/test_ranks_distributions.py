"""Losses that read whole distributions, on two ranks: weights whole on each, and in parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.torchrun import finished, torchrun

import distillkit
from builtin.local.ranks.rank_metrics import SAME, metrics
from distillkit import RunConfig
from distillkit_builtin.losses.divergence import Divergence

SCRIPT = """
from typing import ClassVar
from distillkit import Loss

class ReverseKL(Loss):
    name: ClassVar[str] = "whole_reverse_kl"

    def needs(self):
        return {"full": 1}

    def reads(self):
        return frozenset({"distribution"})

    def token_loss(self):
        return reverse_kl

def reverse_kl(positions, options):
    return (positions.student.exp() * (positions.student - positions.teacher)).sum(-1)
"""


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("student", "option"),
    [
        ({}, "student.loss_chunk_positions=5"),
        ({"lora_rank": 0, "learning_rate": 0.01, "micro_batch_tokens": 100}, "student.shard=always"),
    ],
)
def test_two_ranks_train_on_distributions_as_one(
    local_config: Callable[..., RunConfig],
    tmp_path: Path,
    student: dict[str, Any],
    option: str,
) -> None:
    """A script's loss, whose function travels to the other rank, beside the built-in one in a single process."""
    over: dict[str, Any] = {"student": student, "train": {"prompt_groups_per_step": 2}}
    alone = distillkit.run(local_config(name="alone", loss=Divergence(), **over))
    values = {**local_config(name="both", **over).dump(), "loss": "whole_reverse_kl"}
    script, path = tmp_path / "whole_reverse_kl.py", tmp_path / "both.yaml"
    script.write_text(SCRIPT)
    path.write_text(yaml.safe_dump(values))
    code, output = finished(torchrun(2, str(path), "-p", str(script), option))
    assert code == 0, output
    for line, expected in zip(metrics(alone.run_dir.parent / "both"), alone.metrics, strict=True):
        for name in SAME:
            assert line[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-4), (line["step"], name)
