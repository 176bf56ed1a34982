"""What cannot run on several ranks is refused before anything is loaded."""

from collections.abc import Callable
from typing import ClassVar

import pytest

import distillkit
from distillkit import RunConfig
from distillkit.errors import InputError
from distillkit.positions import TokenLoss
from distillkit.ranks import Rank
from distillkit_builtin.local.device import resolve_device
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]


def test_sharding_that_cannot_be_is_refused(local_config: Make) -> None:
    with pytest.raises(InputError, match="there is one process"):
        distillkit.run(local_config(student={"shard": "always", "lora_rank": 0}))
    with pytest.raises(InputError, match="a LoRA is never sharded"):
        distillkit.run(local_config(student={"shard": "always"}))


def test_every_process_of_torchrun_takes_a_device_of_its_own() -> None:
    with pytest.raises(InputError, match="every process of torchrun takes a device of its own"):
        resolve_device("cuda:0", Rank(3, 4, 1, 4))


class Unsendable(ImportanceSampling):
    name: ClassVar[str] = "unsendable"
    loss_function: ClassVar[str] = "unsendable"

    def options(self) -> dict[str, float]:
        return {}

    def token_loss(self) -> TokenLoss:
        return lambda positions, options: -positions.logprobs * positions.inputs["advantages"]


def test_a_loss_whose_code_cannot_travel_is_refused_before_anything_is_loaded(
    local_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="loss 'unsendable': its token_loss cannot be passed to the other ranks"):
        distillkit.run(local_config(loss=Unsendable()))


def test_a_student_that_runs_in_one_process_refuses_several(
    local_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = local_config()
    monkeypatch.setattr(type(config.student), "spreads", False)
    for rank in ("0", "1"):
        for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match="torchrun started 2 processes, and student 'local' runs in one"):
            distillkit.run(config)
