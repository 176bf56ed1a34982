"""A run that dies, for the tests of how it goes on."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import question

from distillkit import RunConfig
from engine.run_directory.mortal_runs import Mortal, Moving, Power

Make = Callable[..., RunConfig]


@pytest.fixture
def make(fake_config: Make, jsonl: Callable[..., str]) -> Callable[..., RunConfig]:
    """A run of 12 steps whose student dies by `power`, with a teacher that moves; keywords go into `train`."""
    rows = jsonl([question(f"row {i}") for i in range(24)], "resume.jsonl")
    held_out = jsonl([question("held out")], "resume-eval.jsonl")

    def config(name: str, power: Power, **train: Any) -> RunConfig:
        return fake_config(
            name=name,
            data={"path": rows, "eval_path": held_out, "epochs": 1},
            student=Mortal.on(power),
            teachers=[{"model": "t", "scorer": Moving(likes="abc")}],
            evaluators=["reverse_kl"],
            sampling={"completions_per_prompt": 3, "max_completion_tokens": 12},
            train={"prompt_groups_per_step": 2, "max_failed_fraction": 1.0, "eval_every": 3, **train},
        )

    return config
