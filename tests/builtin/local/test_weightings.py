"""Weightings with the local student: what is left out trains nothing, and where all is, no weight moves."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from distillkit import RunConfig, run

Make = Callable[..., RunConfig]


def adapter(config: RunConfig) -> dict[str, Any]:
    return load_file(next((run(config).run_dir / "adapter").glob("*.safetensors")))


def test_a_step_of_which_all_is_left_out_trains_nothing(local_config: Make) -> None:
    train = {"prompt_groups_per_step": 4, "max_steps": 1}
    sampling = {"max_completion_tokens": 2}  # which a random model never ends in
    plain = adapter(local_config(name="plain", train=train, sampling=sampling))
    none = run(local_config(name="none", train={**train, "weightings": ["truncated"]}, sampling=sampling))
    assert none.metrics[0]["weights/truncated"] == none.metrics[0]["weights/kept_fraction"] == 0
    assert none.metrics[0]["train/loss"] == none.metrics[0]["train/grad_norm"] == 0
    untouched = load_file(next((none.run_dir / "adapter").glob("*.safetensors")))
    assert not any(array.any() for name, array in untouched.items() if "lora_B" in name)
    assert any(array.any() for name, array in plain.items() if "lora_B" in name)


@pytest.mark.parametrize(
    "weightings",
    [
        [{"name": "entropy", "by": "gap", "share": 0.25}],
        [{"name": "skip_first", "tokens": 2}, "position", "special_tokens", "repetition"],
    ],
)
def test_built_ins_train_a_model(local_config: Make, weightings: list[Any]) -> None:
    rows = run(local_config(train={"prompt_groups_per_step": 4, "weightings": weightings})).metrics
    assert all(np.isfinite(row["train/loss"]) and row["train/grad_norm"] > 0 for row in rows)
    for row in rows:
        assert {f"weights/{each if isinstance(each, str) else each['name']}" for each in weightings} < row.keys()
        assert row["weights/kept_fraction"] > 0
    if len(weightings) == 1:
        tokens = rows[0]["train/active_tokens"]
        assert rows[0]["weights/entropy"] == pytest.approx(round(0.25 * tokens) / tokens)
