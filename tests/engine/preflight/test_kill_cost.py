from typing import Any

import pytest

from distillkit.config.train_config import TrainConfig
from distillkit.preflight.kill_cost import kill_cost


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, "at most 10 minutes and the step in hand (train.save_every_minutes)"),
        ({"weight_sync_interval": 4}, "at most 10 minutes and 4 steps (train.save_every_minutes)"),
        ({"save_every": 1, "save_every_minutes": 0}, "at most 1 step (train.save_every)"),
        (
            {"save_every": 5, "save_every_minutes": 2.5},
            "at most 5 steps (train.save_every), or 2.5 minutes and the step in hand (train.save_every_minutes), "
            "whichever is less",
        ),
        (
            {"save_every": 30, "save_every_minutes": 0},
            "at most 20 steps (train.save_every, which is 30: the run is shorter)",
        ),
        ({"save_every": 20, "save_every_minutes": 0}, "at most 20 steps (train.save_every)"),
        (
            {"save_every_minutes": 0},
            "all of it: nothing is saved before the last step (train.save_every, train.save_every_minutes)",
        ),
    ],
)
def test_what_a_kill_costs_is_said_in_steps_or_minutes(train: dict[str, Any], expected: str) -> None:
    assert kill_cost(TrainConfig(**train), 20) == expected
